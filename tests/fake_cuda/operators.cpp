// A CUDA device in host memory, for CPU builds of torch: one fallback runs every operator of the CUDA key by its CPU
// kernel, on the same memory. Devices, dtypes, memory, streams and synchronisations are CUDA's; the numbers are the CPU's.
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <unordered_map>

#include "capture.h"
#include "hooks.h"
#include "memory.h"
#include "state.h"
#include "tensors.h"

namespace fake_cuda {

using Stack = torch::jit::Stack;
using c10::IValue;

std::atomic<int64_t> num_operators{0};

// What CUDA's version of an operator does that the CPU's does not.
struct Traits {
  std::string name;
  bool always_waits;  // for a size or a value that the host needs
  bool has_indices;   // which may be on the CPU
  bool puts;          // at indices; reading at indices begins with operators of its own, which wait
  bool is_grouped;    // one kernel for lists of tensors, which must all be on the device
  bool is_random;

  explicit Traits(const c10::OperatorHandle& op) : name(op.schema().name()) {
    static const std::array waiting = {
        "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::bincount",
        "aten::_unique", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::repeat_interleave",
        "aten::multinomial"};
    always_waits = std::find(waiting.begin(), waiting.end(), name) != waiting.end();
    puts = name == "aten::_index_put_impl_";
    has_indices = puts || name == "aten::index";
    is_grouped = name.rfind("aten::_foreach_", 0) == 0 || name.rfind("aten::_fused_", 0) == 0;
    is_random = op.hasTag(at::Tag::nondeterministic_seeded);
  }

  static const Traits& of(const c10::OperatorHandle& op) {
    static std::mutex mutex;
    static std::unordered_map<c10::OperatorName, Traits> known;
    std::lock_guard lock(mutex);
    return known.try_emplace(op.operator_name(), op).first->second;
  }
};

// One call of an operator: its arguments on the host, and what of them comes back.
struct Call {
  const c10::OperatorHandle& op;
  const Traits& traits;
  std::vector<at::Tensor> on_devices;                      // the tensors of a device among the arguments
  std::vector<std::pair<at::Tensor, at::Tensor>> written;  // of these, the ones that it writes, and their host form
  c10::DeviceIndex device = -1;

  Call(const c10::OperatorHandle& handle) : op(handle), traits(Traits::of(handle)) {}

  at::Tensor take(const at::Tensor& tensor, const c10::Argument& argument, bool in_list) {
    if (!tensor.defined()) return tensor;
    if (!tensor.is_cuda()) {
      bool is_index = traits.has_indices && argument.name() == "indices";
      bool is_number = tensor.dim() == 0 && !in_list && (!traits.is_grouped || argument.name() == "lr");
      TORCH_CHECK(
          is_index || is_number || !tensor.is_cpu(), "Expected all tensors to be on the same device, but ",
          argument.name(), " of ", traits.name, " is on ", tensor.device(), " and others are on cuda");
      if (is_index && traits.puts) synchronize("copy of an index from the CPU");
      return tensor;
    }
    TORCH_CHECK(
        device < 0 || device == tensor.device().index(), "Expected all tensors to be on the same device, but ",
        argument.name(), " of ", traits.name, " is on ", tensor.device(), " and others are on cuda:", int(device));
    device = tensor.device().index();
    auto host = on_host(tensor);
    on_devices.push_back(tensor);
    if (argument.alias_info() && argument.alias_info()->isWrite()) written.emplace_back(tensor, host);
    return host;
  }

  // Replaces the arguments on the stack by their form on the host.
  void take_arguments(Stack* stack) {
    const auto& arguments = op.schema().arguments();
    auto first = stack->end() - arguments.size();
    for (size_t i = 0; i < arguments.size(); ++i) {
      IValue& value = first[i];
      if (value.isTensor()) {
        value = take(value.toTensor(), arguments[i], false);
      } else if (value.isTensorList()) {
        c10::List<at::Tensor> taken;
        for (at::Tensor tensor : value.toTensorList()) taken.push_back(take(tensor, arguments[i], true));
        value = taken;
      } else if (value.isOptionalTensorList()) {
        c10::List<std::optional<at::Tensor>> taken;
        for (std::optional<at::Tensor> tensor : value.toOptionalTensorList())
          taken.push_back(tensor ? std::optional(take(*tensor, arguments[i], true)) : tensor);
        value = taken;
      } else if (value.isDevice() && value.toDevice().is_cuda()) {
        if (value.toDevice().has_index()) device = value.toDevice().index();
        value = c10::Device(c10::kCPU);
      }
    }
  }

  // Whether the host waits for the device in this call.
  bool waits(const Stack& stack) const {
    if (traits.always_waits) return true;
    if (!traits.puts) return false;
    const auto& arguments = op.schema().arguments();
    auto first = stack.end() - arguments.size();
    bool has_mask = false;
    for (std::optional<at::Tensor> index : first[1].toOptionalTensorList())
      has_mask |= index && index->defined() && (index->dtype() == at::kBool || index->dtype() == at::kByte);
    bool is_fill = first[2].toTensor().numel() == 1;
    return has_mask && !is_fill;  // a mask becomes positions, whose number the host needs
  }

  bool has_generator(const Stack& stack) const {
    auto first = stack.end() - op.schema().arguments().size();
    return std::any_of(first, stack.end(), [](const IValue& value) { return value.isGenerator(); });
  }

  at::Tensor give(const at::Tensor& host) {
    for (const auto& [tensor, form] : written)
      if (form.is_same(host)) return tensor;
    auto tensor = on_device(host, on_devices);
    bool is_view = std::any_of(on_devices.begin(), on_devices.end(), [&](const at::Tensor& argument) {
      return tensor.defined() && tensor.is_alias_of(argument);
    });
    return is_view ? tensor : owned(tensor);
  }

  // Gives tensors that the operator has resized their new memory. The operators of a graph then work on it.
  void resize_written(Node* node) {
    for (const auto& [tensor, host] : written) {
      if (!take_over(tensor, host) || !node) continue;
      owned(tensor);
      node->replace(host, on_host(tensor));
    }
  }

  // Replaces the results on the stack by tensors of the device.
  void give_results(Stack* stack) {
    for (auto value = stack->end() - op.schema().returns().size(); value != stack->end(); ++value) {
      if (value->isTensor()) {
        *value = give(value->toTensor());
      } else if (value->isTensorList()) {
        c10::List<at::Tensor> given;
        for (at::Tensor tensor : value->toTensorList()) given.push_back(give(tensor));
        *value = given;
      }
    }
  }
};

void run(const c10::OperatorHandle& op, Stack* stack) {
  ++num_operators;
  Call call(op);
  call.take_arguments(stack);
  if (call.waits(*stack)) synchronize(call.traits.name.c_str());
  CurrentDevice device(call.device);
  Running running;
  bool draws = call.traits.is_random && !call.has_generator(*stack);
  std::optional<Node> node;
  if (is_captured()) {
    node = Node{op, Values(stack->end() - op.schema().arguments().size(), stack->end()), current_device, draws};
    std::lock_guard lock(graph_mutex);
    for (const auto& [tensor, host] : call.written) new_graph->keep_content(tensor);
  }
  {
    RandomState state(draws ? &generator_of(current_device) : nullptr);
    op.callBoxed(stack);
  }
  if (node) {
    node->results = Values(stack->end() - op.schema().returns().size(), stack->end());
  }
  call.resize_written(node ? &*node : nullptr);
  if (node) {
    std::lock_guard lock(graph_mutex);
    new_graph->add(*node);
  }
  call.give_results(stack);
}

at::Tensor run(const char* name, Stack stack) {
  run(c10::Dispatcher::singleton().findSchemaOrThrow(name, ""), &stack);
  return stack[0].toTensor();
}

// CUDA's softmax reads 16 bits and writes 32 in one kernel. The CPU's does not, so the input is converted before.
at::Tensor softmax(const at::Tensor& input, int64_t dim, bool half_to_float) {
  return run("aten::_softmax", {half_to_float ? input.to(at::kFloat) : input, dim, false});
}
at::Tensor log_softmax(const at::Tensor& input, int64_t dim, bool half_to_float) {
  return run("aten::_log_softmax", {half_to_float ? input.to(at::kFloat) : input, dim, false});
}
at::Tensor softmax_backward(const at::Tensor& gradient, const at::Tensor& output, int64_t dim, at::ScalarType dtype) {
  return run("aten::_softmax_backward_data", {gradient, output, dim, gradient.scalar_type()}).to(dtype);
}
at::Tensor log_softmax_backward(
    const at::Tensor& gradient, const at::Tensor& output, int64_t dim, at::ScalarType dtype) {
  return run("aten::_log_softmax_backward_data", {gradient, output, dim, gradient.scalar_type()}).to(dtype);
}

at::Tensor& copy_(at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  ++num_operators;
  const auto& host = self.is_cuda() ? source : self;
  if (!host.is_cuda() && !(non_blocking && host.is_pinned())) {
    synchronize(self.is_cuda() ? "copy from the CPU" : "copy to the CPU");
  }
  auto to = on_host(self), from = on_host(source);
  CurrentDevice device(self.is_cuda() ? self.device().index() : source.device().index());
  if (is_captured()) {
    static auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::copy_", "");
    std::lock_guard lock(graph_mutex);
    if (self.is_cuda()) new_graph->keep_content(self);
    new_graph->add({op, {to, from, false}, current_device, false, {to}});
  }
  to.copy_(from);
  return self;
}

const at::Tensor& resize_(const at::Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  at::Tensor like = at::detail::empty_meta(C10_AS_INTARRAYREF_SLOW(size), self.scalar_type(), std::nullopt);
  TORCH_CHECK(!is_captured(), "the fake device cannot capture resize_");
  size_t bytes = like.numel() * like.element_size();
  auto* storage = self.storage().unsafeGetStorageImpl();
  if (bytes > storage->nbytes()) {
    auto data = device_allocator.allocate(bytes);
    if (storage->nbytes()) memcpy(data.get(), storage->data(), storage->nbytes());
    storage->set_data_ptr(std::move(data));
    storage->set_nbytes(bytes);
  }
  self.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides());
  return self;
}

at::Tensor new_tensor(const at::Tensor& like, std::optional<c10::Device> device) {
  auto index = device && device->has_index() ? device->index() : current_device;
  TORCH_CHECK(index < num_devices, "CUDA error: invalid device ordinal");
  CurrentDevice current(index);
  size_t bytes = at::detail::computeStorageNbytes(like.sizes(), like.strides(), like.element_size());
  c10::Storage storage(
      c10::Storage::use_byte_size_t(), bytes, device_allocator.allocate(bytes), &device_allocator, true);
  return owned(make_tensor(std::move(storage), c10::DispatchKey::CUDA, like, 0));
}

at::Tensor empty(
    c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<c10::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  auto kind = dtype.value_or(at::get_default_dtype_as_scalartype());
  return new_tensor(at::detail::empty_meta(C10_AS_INTARRAYREF_SLOW(size), kind, format), device);
}

at::Tensor empty_strided(
    c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  auto kind = dtype.value_or(at::get_default_dtype_as_scalartype());
  at::Tensor like =
      at::detail::empty_strided_meta(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), kind);
  return new_tensor(like, device);
}

at::Tensor random_state(int64_t device) { return generator_of(device).get_state(); }
void set_random_state(int64_t device, const at::Tensor& state) { generator_of(device).set_state(state); }
void seed_device(int64_t device, int64_t seed) { generator_of(device).set_current_seed(seed); }

}  // namespace fake_cuda

using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
using fake_cuda::CUDAHooks;
namespace {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, CUDAHooks)
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fake_cuda::run>());
}
TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  // torch has a kernel for these on all devices, a loop over the list. It would run instead of the fallback.
  for (const auto& op : c10::Dispatcher::singleton().getAllOpNames()) {
    if (op.name.rfind("aten::_foreach_", 0) != 0) continue;
    auto name = op.overload_name.empty() ? op.name : op.name + "." + op.overload_name;
    library.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&fake_cuda::run>());
  }
  library.impl("_softmax", &fake_cuda::softmax);
  library.impl("_log_softmax", &fake_cuda::log_softmax);
  library.impl("_softmax_backward_data", &fake_cuda::softmax_backward);
  library.impl("_log_softmax_backward_data", &fake_cuda::log_softmax_backward);
  library.impl("copy_", &fake_cuda::copy_);
  library.impl("resize_", &fake_cuda::resize_);
  library.impl("empty.memory_format", &fake_cuda::empty);
  library.impl("empty_strided", &fake_cuda::empty_strided);
}
TORCH_LIBRARY(fake_cuda, library) {
  library.def("on_host(Tensor tensor) -> Tensor", &fake_cuda::on_host);
  library.def("random_state(int device) -> Tensor", &fake_cuda::random_state);
  library.def("set_random_state(int device, Tensor state) -> ()", &fake_cuda::set_random_state);
  library.def("seed_device(int device, int seed) -> ()", &fake_cuda::seed_device);
  library.def("synchronize(str reason) -> ()", [](const std::string& reason) { fake_cuda::synchronize(reason.c_str()); });
  library.def("begin_capture(bool is_global) -> ()", &fake_cuda::begin_capture);
  library.def("end_capture() -> int", &fake_cuda::end_capture);
  library.def("replay(int graph) -> ()", &fake_cuda::replay);
  library.def("free_graph(int graph) -> ()", &fake_cuda::free_graph);
}

extern "C" {
void fake_cuda_register() {
  c10::SetAllocator(fake_cuda::kCUDA, &fake_cuda::device_allocator, 255);
  if (!c10::impl::hasDeviceGuardImpl(fake_cuda::kCUDA))
    c10::impl::registerDeviceGuard(fake_cuda::kCUDA, new fake_cuda::Guard());
}
int fake_cuda_is_registered() { return at::detail::getCUDAHooks().hasCUDA(); }
void fake_cuda_set_num_devices(int number) { fake_cuda::num_devices = number; }
int fake_cuda_num_devices() { return fake_cuda::num_devices; }
int fake_cuda_current_device() { return fake_cuda::current_device; }
int fake_cuda_exchange_device(int device) { return std::exchange(fake_cuda::current_device, device); }
int fake_cuda_is_capturing() { return fake_cuda::capture.is_here(); }
int fake_cuda_is_running() { return fake_cuda::num_running; }
int64_t fake_cuda_num_replays() { return fake_cuda::num_replays; }
void fake_cuda_listen(void (*listener)(const char*)) { fake_cuda::listener = listener; }
int64_t fake_cuda_num_operators() { return fake_cuda::num_operators; }
int64_t fake_cuda_num_synchronizations() { return fake_cuda::num_synchronizations; }
int64_t fake_cuda_allocated(int device) { return fake_cuda::memory[device].allocated; }
int64_t fake_cuda_peak(int device) { return fake_cuda::memory[device].peak; }
void fake_cuda_reset_peak(int device) { fake_cuda::memory[device].peak = fake_cuda::memory[device].allocated.load(); }
int64_t fake_cuda_stream(int device) { return fake_cuda::current_streams[device]; }
void fake_cuda_resize_storage(c10::StorageImpl* storage, int64_t bytes) {
  fake_cuda::CurrentDevice current(storage->device().index());
  auto data = fake_cuda::device_allocator.allocate(bytes);
  if (bytes && storage->nbytes()) memcpy(data.get(), storage->data(), std::min<size_t>(bytes, storage->nbytes()));
  storage->set_data_ptr_noswap(std::move(data));
  storage->set_nbytes(bytes);
}
void fake_cuda_set_stream(int device, int64_t stream) {
  fake_cuda::current_device = device;
  fake_cuda::current_streams[device] = stream;
}
}
