// The state of the process and of its threads: current device, current streams, the capture of a graph; and what it forbids.
#pragma once
#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <c10/util/Exception.h>

#include <array>
#include <atomic>
#include <thread>

namespace fake_cuda {

constexpr auto kCUDA = c10::DeviceType::CUDA;
constexpr int kMostDevices = 16;

inline c10::DeviceIndex num_devices = 1;
inline thread_local c10::DeviceIndex current_device = 0;
inline thread_local std::array<c10::StreamId, kMostDevices> current_streams{};

// Makes a device the current one while it lives; none if the index is below 0.
class CurrentDevice {
 public:
  explicit CurrentDevice(c10::DeviceIndex device) : before_(current_device) {
    if (device >= 0) current_device = device;
  }
  ~CurrentDevice() { current_device = before_; }

 private:
  c10::DeviceIndex before_;
};

// Counts the operators of a device that this thread is in.
inline thread_local int num_running = 0;
struct Running {
  Running() { ++num_running; }
  ~Running() { --num_running; }
};

// The capture of a CUDA graph. A process has at most one at a time.
struct CaptureState {
  std::atomic<bool> is_active{false};
  c10::DeviceIndex device = 0;
  c10::StreamId stream = 0;
  std::thread::id thread;
  bool is_global = true;  // cudaStreamCaptureModeGlobal: no thread may do what disturbs a capture
  std::atomic<bool> is_invalid{false};

  // Whether the work of this thread goes into the graph. Autograd's threads take over the stream of the forward pass.
  bool is_here() const { return is_active && current_device == device && current_streams[device] == stream; }
};
inline CaptureState capture;

// Raises CUDA's error for what may not happen during a capture: in its thread and on its stream, or in all threads.
inline void forbid_in_capture(const char* action) {
  if (!capture.is_active) return;
  if (!capture.is_here() && !capture.is_global && std::this_thread::get_id() != capture.thread) return;
  capture.is_invalid = true;
  TORCH_CHECK(false, "CUDA error: operation not permitted when stream is capturing (", action, ")");
}

inline std::atomic<int64_t> num_synchronizations{0};
inline void (*listener)(const char*) = nullptr;  // is called with the reason, in the thread that waits

// The host waits until the device has done all that was asked of it.
inline void synchronize(const char* reason) {
  forbid_in_capture(reason);
  ++num_synchronizations;
  if (listener) listener(reason);
}

}  // namespace fake_cuda
