// What torch asks of a CUDA build: a guard of the current device, streams and events, random generators, and hooks.
#pragma once
#include <ATen/CPUGeneratorImpl.h>

#include "memory.h"
#include "state.h"

namespace fake_cuda {

inline std::atomic<c10::StreamId> num_streams{0};

inline c10::Stream stream_of(c10::DeviceIndex device, c10::StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(kCUDA, device), id);
}

// Every operator has ended when its call returns, so streams and events have nothing to wait for; they only have names.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  static c10::DeviceIndex index_of(c10::Device device) { return device.has_index() ? device.index() : current_device; }

  c10::DeviceType type() const override { return kCUDA; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {kCUDA, std::exchange(current_device, device.index())};
  }
  c10::Device getDevice() const override { return {kCUDA, current_device}; }
  void setDevice(c10::Device device) const override { current_device = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current_device = device.index(); }
  c10::DeviceIndex deviceCount() const noexcept override { return num_devices; }

  c10::Stream getStream(c10::Device device) const override {
    return stream_of(index_of(device), current_streams[index_of(device)]);
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream_of(index_of(device), 0); }
  c10::Stream getNewStream(c10::Device device, int) const override { return stream_of(index_of(device), ++num_streams); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override { return getNewStream(device, 0); }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    auto before = std::exchange(current_streams[stream.device_index()], stream.id());
    return stream_of(stream.device_index(), before);
  }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { synchronize("Stream.synchronize"); }
  bool isStreamCapturing(const c10::Stream& stream) const override {
    return capture.is_active && stream == stream_of(capture.device, capture.stream);
  }
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}

  void record(void** event, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {
    if (!*event) *event = new int();
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override { delete static_cast<int*>(event); }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override { synchronize("Event.synchronize"); }
  double elapsedTime(void*, void*, c10::DeviceIndex) const override { return 1.0; }  // ms, as good as any
  void synchronizeDevice(c10::DeviceIndex) const override { synchronize("torch.cuda.synchronize"); }
};

// A generator for each device. Its engine is the CPU's, so a device draws what a CPU with the same seed draws.
inline at::Generator& generator_of(c10::DeviceIndex device) {
  static std::array<at::Generator, kMostDevices> generators = [] {
    std::array<at::Generator, kMostDevices> made;
    for (auto& generator : made) generator = at::detail::createCPUGenerator();
    return made;
  }();
  return generators.at(device);
}

// Draws of an operator without a generator come from that of the device.
class RandomState {
 public:
  explicit RandomState(at::Generator* device) : device_(device) {
    if (device_) exchange();
  }
  ~RandomState() {
    if (device_) exchange();
  }

 private:
  void exchange() {
    auto host = at::detail::getDefaultCPUGenerator();
    std::lock_guard lock(host.mutex());
    auto state = host.get_state();
    host.set_state(device_->get_state());
    device_->set_state(state);
  }
  at::Generator* device_;
};

struct CUDAHooks : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return num_devices > 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return num_devices; }
  int getNumGPUs() const override { return num_devices; }
  c10::DeviceIndex current_device() const override { return fake_cuda::current_device; }
  c10::DeviceIndex getCurrentDevice() const override { return fake_cuda::current_device; }
  void setCurrentDevice(c10::DeviceIndex device) const override { fake_cuda::current_device = device; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    return std::exchange(fake_cuda::current_device, device);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override {
    return device < 0 ? fake_cuda::current_device : exchangeDevice(device);
  }
  void deviceSynchronize(c10::DeviceIndex) const override { synchronize("torch.cuda.synchronize"); }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  c10::Allocator* getCUDADeviceAllocator() const override { return &device_allocator; }
  c10::Device getDeviceFromPtr(void*) const override { return {kCUDA, fake_cuda::current_device}; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex device) const override {
    return generator_of(device < 0 ? fake_cuda::current_device : device);
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::detail::createCPUGenerator(); }
};

}  // namespace fake_cuda
