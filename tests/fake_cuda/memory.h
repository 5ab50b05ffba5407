// Memory of the devices, pinned memory, and the counts of both.
#pragma once
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <array>
#include <atomic>
#include <mutex>
#include <unordered_set>

#include "state.h"

namespace fake_cuda {

struct DeviceMemory {
  std::atomic<int64_t> allocated{0}, peak{0};

  void add(int64_t bytes) {
    int64_t now = allocated += bytes, highest = peak;
    while (now > highest && !peak.compare_exchange_weak(highest, now)) {}
  }
};
inline std::array<DeviceMemory, kMostDevices> memory;

inline size_t rounded(size_t bytes) { return (bytes / 64 + 1) * 64; }

// A block of a device, whose size counts until it is freed.
struct Block {
  void* data;
  int64_t bytes;
  c10::DeviceIndex device;
};

inline void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  memory[block->device].allocated -= block->bytes;
  free(block->data);
  delete block;
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    c10::Device device(kCUDA, current_device);
    if (!bytes) return {nullptr, nullptr, nullptr, device};
    auto* block = new Block{aligned_alloc(64, rounded(bytes)), static_cast<int64_t>(bytes), current_device};
    memory[current_device].add(block->bytes);
    return {block->data, block, &free_block, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};
inline DeviceAllocator device_allocator;

inline std::mutex pinned_mutex;
inline std::unordered_set<const void*> pinned_blocks;

inline void free_pinned(void* data) {
  {
    std::lock_guard lock(pinned_mutex);
    pinned_blocks.erase(data);
  }
  free(data);
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    forbid_in_capture("allocation of pinned memory");
    void* data = aligned_alloc(64, rounded(bytes));
    std::lock_guard lock(pinned_mutex);
    pinned_blocks.insert(data);
    return {data, data, &free_pinned, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};
inline PinnedAllocator pinned_allocator;

inline bool is_pinned(const void* data) {
  std::lock_guard lock(pinned_mutex);
  return pinned_blocks.count(data);
}

}  // namespace fake_cuda
