// Tensors of a device as tensors of the CPU on the same memory, and back.
#pragma once
#include <ATen/ATen.h>
#include <ATen/native/Resize.h>
#include <c10/core/CPUAllocator.h>

#include <cstring>
#include <memory>
#include <vector>

#include "memory.h"

namespace fake_cuda {

// The data of a storage may belong to another one, which this keeps alive.
template <class Kept>
void give_up(void* context) {
  delete static_cast<Kept*>(context);
}
template <class Kept>
c10::DataPtr borrowed(void* data, Kept kept, c10::Device device) {
  return {data, new Kept(std::move(kept)), &give_up<Kept>, device};
}

inline at::Tensor make_tensor(
    c10::Storage storage, c10::DispatchKey key, const at::Tensor& like, int64_t offset) {
  auto made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), offset);
  return made;
}

// A tensor of the CPU on the memory of a device's tensor. Others are returned as they are.
inline at::Tensor on_host(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) return tensor;
  TORCH_CHECK(!tensor.is_conj() && !tensor.is_neg(), "the fake CUDA device has no conjugate or negative views");
  void* data = const_cast<void*>(tensor.storage().data());
  if (!data) return at::empty_strided(tensor.sizes(), tensor.strides(), at::TensorOptions(tensor.dtype()));
  c10::Storage storage(
      c10::Storage::use_byte_size_t(), tensor.storage().nbytes(),
      borrowed(data, c10::Storage(tensor.storage()), c10::Device(c10::kCPU)), c10::GetCPUAllocator(), true);
  auto host = make_tensor(std::move(storage), c10::DispatchKey::CPU, tensor, tensor.storage_offset());
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) host.unsafeGetTensorImpl()->set_wrapped_number(true);
  return host;
}

// The storage of a device that a tensor of `on_host` borrows from; none for others.
inline c10::StorageImpl* device_storage(const at::Tensor& host) {
  if (!host.defined() || !host.has_storage()) return nullptr;
  const auto& data = host.storage().data_ptr();
  bool is_borrowed = data.get_deleter() == &give_up<c10::Storage>;
  return is_borrowed ? static_cast<c10::Storage*>(data.get_context())->unsafeGetStorageImpl() : nullptr;
}

// The memory of an operator's result, which was allocated by the CPU's kernel and counts as the device's.
struct Result {
  at::Tensor host;
  c10::DeviceIndex device;
  Result(at::Tensor tensor, c10::DeviceIndex index) : host(std::move(tensor)), device(index) {
    memory[device].add(host.storage().nbytes());
  }
  ~Result() { memory[device].allocated -= host.storage().nbytes(); }
};

// The result of a CPU kernel as a tensor of the current device: a view, if it is one of the operator's arguments.
inline at::Tensor on_device(const at::Tensor& host, const std::vector<at::Tensor>& arguments) {
  if (!host.defined() || host.is_cuda()) return host;
  auto* storage_data = static_cast<char*>(const_cast<void*>(host.storage().data()));
  if (storage_data) {
    auto* first = storage_data + host.storage_offset() * host.element_size();
    for (const auto& argument : arguments) {
      auto* begin = static_cast<char*>(const_cast<void*>(argument.storage().data()));
      if (!begin || first < begin || first >= begin + argument.storage().nbytes()) continue;
      auto view = at::detail::make_tensor<c10::TensorImpl>(
          c10::TensorImpl::VIEW, c10::Storage(argument.storage()), argument.key_set(), host.dtype());
      view.unsafeGetTensorImpl()->set_sizes_and_strides(
          host.sizes(), host.strides(), (first - begin) / static_cast<int64_t>(host.element_size()));
      return view;
    }
  }
  c10::Storage storage(
      c10::Storage::use_byte_size_t(), host.storage().nbytes(),
      borrowed(storage_data, std::make_unique<Result>(host, current_device), c10::Device(kCUDA, current_device)),
      &device_allocator, true);
  return make_tensor(std::move(storage), c10::DispatchKey::CUDA, host, host.storage_offset());
}

// Gives a tensor of a device, which a CPU kernel has resized on the host, new memory with the content. Returns whether it was.
inline bool take_over(const at::Tensor& device, const at::Tensor& host) {
  if (device.sizes() == host.sizes() && device.strides() == host.strides()) return false;
  size_t bytes = at::detail::computeStorageNbytes(host.sizes(), host.strides(), host.element_size());
  auto* storage = device.storage().unsafeGetStorageImpl();
  storage->set_data_ptr(device_allocator.allocate(bytes));
  storage->set_nbytes(bytes);
  device.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides(), 0);
  if (bytes) memcpy(storage->mutable_data(), host.data_ptr(), bytes);
  return true;
}

}  // namespace fake_cuda
