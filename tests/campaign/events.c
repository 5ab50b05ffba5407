/* A library for LD_PRELOAD that numbers what a job writes, and does something at one of these events.

   Counted: to open a file for writing, to write, to sync, to cut, to rename, to link, to remove, to make a folder; below one
   folder, in all threads and processes of the job. Code in Python, Rust and C++ calls the same functions of libc.
   A file in shared memory (`struct control`, events.py) holds the count and what to do at which event. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum action { NOTHING, FAIL, CUT, KILL, WAIT, JUMP };

struct control {
    int64_t count;        /* events so far */
    int64_t at;           /* the event at which something is done, from 1 */
    int64_t action;
    int64_t error;        /* errno of FAIL and CUT */
    int64_t is_lasting;   /* whether all later writes fail, too */
    int64_t is_waiting, may_continue;  /* for WAIT */
    int64_t clock_seconds;             /* added to the time of day */
    int64_t jump_seconds;              /* added to clock_seconds by JUMP */
    char folder[1024];    /* whose events are counted; empty: none */
    char log[1024];       /* file that gets a line for each event; empty: none */
    char what[1024];      /* the event at which something was done */
};

static struct control *control;

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("CAMPAIGN_CONTROL");
    int file = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (file < 0) return;
    void *found = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (found != MAP_FAILED) control = found;
}

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }
#define REAL(name) static __typeof__(name) *next; if (!next) next = real(#name)

/* Count an event; return 0, or the number of an error with which the call has to end: negative if half is to be written. */
static int64_t event(const char *kind, const char *path) {
    if (!control || !control->folder[0] || !path) return 0;
    if (strncmp(path, control->folder, strlen(control->folder))) return 0;
    int64_t number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    if (control->log[0]) {
        char line[PATH_MAX + 64];
        int size = snprintf(line, sizeof line, "%s %s\n", kind, path);
        int file = syscall(SYS_openat, AT_FDCWD, control->log, O_WRONLY | O_APPEND | O_CREAT, 0600);
        syscall(SYS_write, file, line, size);
        syscall(SYS_close, file);
    }
    if (!control->at || number < control->at) return 0;
    if (number > control->at) return control->is_lasting && strcmp(kind, "remove") ? control->error : 0;
    snprintf(control->what, sizeof control->what, "%s %s", kind, path);
    switch (control->action) {
    case FAIL: return control->error;
    case CUT: return -control->error;
    case KILL: syscall(SYS_kill, getpid(), SIGKILL); for (;;) usleep(1000);
    case WAIT:
        __atomic_store_n(&control->is_waiting, 1, __ATOMIC_SEQ_CST);
        while (!__atomic_load_n(&control->may_continue, __ATOMIC_SEQ_CST)) usleep(1000);
        return 0;
    case JUMP: control->clock_seconds += control->jump_seconds; return 0;
    default: return 0;
    }
}

static const char *path_of(int file, char *path) {
    char link[64];
    if (!control || !control->folder[0]) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size <= 0) return NULL;
    path[size] = 0;
    return path;
}

static const char *path_at(int folder, const char *name, char *path) {
    if (name[0] == '/' || folder == AT_FDCWD) return name;
    if (!path_of(folder, path)) return NULL;
    size_t size = strlen(path);
    snprintf(path + size, PATH_MAX - size, "/%s", name);
    return path;
}

#define FAIL_WITH(number, result) do { errno = (int)(number); return result; } while (0)
#define CHECK_PATH(kind, path) do { \
    int64_t found = event(kind, path); if (found) FAIL_WITH(found < 0 ? -found : found, -1); } while (0)
#define CHECK_FILE(kind, file) do { \
    char name[PATH_MAX]; int64_t found = event(kind, path_of(file, name)); \
    if (found) FAIL_WITH(found < 0 ? -found : found, -1); } while (0)

#define OPEN(function) \
int function(const char *path, int flags, ...) { \
    REAL(function); \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    if (flags & (O_CREAT | O_TRUNC)) CHECK_PATH("open", path); \
    return next(path, flags, mode); \
}
OPEN(open)
OPEN(open64)

#define OPENAT(function) \
int function(int folder, const char *path, int flags, ...) { \
    REAL(function); \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    char whole[PATH_MAX]; \
    if (flags & (O_CREAT | O_TRUNC)) CHECK_PATH("open", path_at(folder, path, whole)); \
    return next(folder, path, flags, mode); \
}
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *data, size_t size) {
    REAL(write);
    char name[PATH_MAX];
    int64_t found = event("write", path_of(file, name));
    if (found > 0 || (found < 0 && size < 2)) FAIL_WITH(found < 0 ? -found : found, -1);
    return next(file, data, found < 0 ? size / 2 : size);
}

ssize_t writev(int file, const struct iovec *parts, int number) {
    REAL(writev);
    CHECK_FILE("write", file);
    return next(file, parts, number);
}

#define PWRITE(function, offset_type) \
ssize_t function(int file, const void *data, size_t size, offset_type offset) { \
    REAL(function); CHECK_FILE("write", file); return next(file, data, size, offset); }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

/* shutil.copyfile and std::fs::copy write with these */
#define SENDFILE(function, offset_type) \
ssize_t function(int file, int from, offset_type *offset, size_t size) { \
    REAL(function); CHECK_FILE("write", file); return next(file, from, offset, size); }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int from, off64_t *start, int file, off64_t *offset, size_t size, unsigned flags) {
    REAL(copy_file_range);
    CHECK_FILE("write", file);
    return next(from, start, file, offset, size, flags);
}

#define ON_FILE(function, kind, parameters, arguments) \
int function parameters { REAL(function); CHECK_FILE(kind, file); return next arguments; }
ON_FILE(fsync, "sync", (int file), (file))
ON_FILE(fdatasync, "sync", (int file), (file))
ON_FILE(ftruncate, "cut", (int file, off_t size), (file, size))
ON_FILE(ftruncate64, "cut", (int file, off64_t size), (file, size))

#define ON_PATH(function, kind, parameters, arguments, path) \
int function parameters { REAL(function); CHECK_PATH(kind, path); return next arguments; }
ON_PATH(rename, "rename", (const char *from, const char *to), (from, to), to)
ON_PATH(link, "link", (const char *from, const char *to), (from, to), to)
ON_PATH(symlink, "link", (const char *from, const char *to), (from, to), to)
ON_PATH(unlink, "remove", (const char *path), (path), path)
ON_PATH(rmdir, "remove", (const char *path), (path), path)
ON_PATH(mkdir, "folder", (const char *path, mode_t mode), (path, mode), path)

int renameat(int first, const char *from, int second, const char *to) {
    REAL(renameat);
    char whole[PATH_MAX];
    CHECK_PATH("rename", path_at(second, to, whole));
    return next(first, from, second, to);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    char whole[PATH_MAX];
    CHECK_PATH("remove", path_at(folder, path, whole));
    return next(folder, path, flags);
}

/* ---- the clock */

static int64_t ahead(void) { return control ? __atomic_load_n(&control->clock_seconds, __ATOMIC_SEQ_CST) : 0; }

int clock_gettime(clockid_t clock, struct timespec *found) {
    REAL(clock_gettime);
    int status = next(clock, found);
    if (!status && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) found->tv_sec += ahead();
    return status;
}

int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    static int (*next)(struct timeval *, void *);
    if (!next) next = real("gettimeofday");
    int status = next(found, zone);
    if (!status) found->tv_sec += ahead();
    return status;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
