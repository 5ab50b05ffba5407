// CUDA graphs: the operators of a capture are recorded, and run on the same memory in a replay.
//
// On a GPU a capture computes nothing, and memory from before it does not stay by itself. So at its end here, what it wrote
// is undone or becomes rubbish, and a replay looks whether the memory is still in use.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "hooks.h"
#include "state.h"
#include "tensors.h"

namespace fake_cuda {

using Values = std::vector<c10::IValue>;

template <class Use>
void each_tensor(const Values& values, Use use) {
  for (const auto& value : values) {
    if (value.isTensor()) use(value.toTensor());
    if (value.isTensorList())
      for (at::Tensor tensor : value.toTensorList()) use(tensor);
    if (value.isOptionalTensorList())
      for (std::optional<at::Tensor> tensor : value.toOptionalTensorList())
        if (tensor) use(*tensor);
  }
}

// One operator of a graph, its arguments and its results, which are on the host in the memory of the device.
struct Node {
  c10::OperatorHandle op;
  Values arguments;
  c10::DeviceIndex device;
  bool draws;
  Values results{};

  // Puts another tensor in the place of one among arguments and results.
  void replace(const at::Tensor& old, const at::Tensor& other) {
    for (auto* values : {&arguments, &results})
      for (auto& value : *values)
        if (value.isTensor() && value.toTensor().is_same(old)) value = other;
  }

  void run() const {
    CurrentDevice current(device);
    Running running;
    torch::jit::Stack stack(arguments);
    {
      RandomState state(draws ? &generator_of(device) : nullptr);
      op.callBoxed(&stack);
    }
    std::vector<at::Tensor> places;
    each_tensor(results, [&](const at::Tensor& tensor) { places.push_back(tensor); });
    auto place = places.begin();
    each_tensor(stack, [&](const at::Tensor& tensor) {
      if (tensor.defined() && tensor.data_ptr() != place->data_ptr()) place->copy_(tensor);
      ++place;
    });
  }
};

struct Graph {
  std::vector<Node> nodes;
  std::map<c10::StorageImpl*, std::set<c10::StorageImpl*>> forms;  // of the memory of a device, on the host
  std::map<c10::StorageImpl*, std::string> before;                 // content of memory from before the capture
  std::map<c10::StorageImpl*, c10::Storage> own;                   // memory that was allocated in the capture

  void add(Node node) {
    each_tensor(node.arguments, [&](const at::Tensor& host) {
      if (auto* storage = device_storage(host)) forms[storage].insert(host.storage().unsafeGetStorageImpl());
    });
    nodes.push_back(std::move(node));
  }

  // Called before an operator writes.
  void keep_content(const at::Tensor& tensor) {
    auto* storage = tensor.storage().unsafeGetStorageImpl();
    if (own.count(storage) || before.count(storage)) return;
    before[storage] = std::string(static_cast<const char*>(storage->data()), storage->nbytes());
  }

  void undo() {
    for (auto& [storage, content] : before) memcpy(storage->mutable_data(), content.data(), content.size());
    for (auto& [storage, kept] : own) memset(storage->mutable_data(), 0xff, storage->nbytes());
    before.clear();
  }

  void replay() const {
    for (const auto& [storage, hosts] : forms)
      TORCH_CHECK(
          own.count(storage) || c10::raw::intrusive_ptr::use_count(storage) > hosts.size(),
          "a CUDA graph uses memory from before its capture that was freed since: keep the tensor, also a gradient");
    for (const auto& node : nodes) node.run();
  }
};

inline std::mutex graph_mutex;
inline std::shared_ptr<Graph> new_graph;  // of the capture that goes on
inline std::map<int64_t, std::shared_ptr<Graph>> graphs;
inline int64_t last_graph = 0;
inline std::atomic<int64_t> num_replays{0};

inline void begin_capture(bool is_global) {
  TORCH_CHECK(!capture.is_active, "a CUDA graph is already being captured");
  TORCH_CHECK(current_streams[current_device] != 0, "CUDA graphs must be captured on a non-default stream.");
  new_graph = std::make_shared<Graph>();
  capture.device = current_device;
  capture.stream = current_streams[current_device];
  capture.thread = std::this_thread::get_id();
  capture.is_global = is_global;
  capture.is_invalid = false;
  capture.is_active = true;
}

inline int64_t end_capture() {
  TORCH_CHECK(capture.is_active, "no CUDA graph is being captured");
  capture.is_active = false;
  auto graph = std::exchange(new_graph, nullptr);
  graph->undo();
  TORCH_CHECK(!capture.is_invalid, "CUDA error: operation failed due to a previous error during capture");
  graphs[++last_graph] = graph;
  return last_graph;
}

inline void replay(int64_t number) {
  ++num_replays;
  graphs.at(number)->replay();
}

inline void free_graph(int64_t number) { graphs.erase(number); }

// Whether the operator that this thread runs on the current device belongs to a graph.
inline bool is_captured() {
  bool is_elsewhere = capture.is_active && !capture.is_here() && std::this_thread::get_id() == capture.thread;
  TORCH_CHECK(!is_elsewhere, "the fake device cannot capture work on a second stream");
  return capture.is_here();
}

// A new tensor of a device; its memory belongs to the graph if there is a capture.
inline at::Tensor owned(at::Tensor tensor) {
  if (capture.is_here() && tensor.defined() && tensor.storage().nbytes()) {
    std::lock_guard lock(graph_mutex);
    new_graph->own.emplace(tensor.storage().unsafeGetStorageImpl(), tensor.storage());
  }
  return tensor;
}

}  // namespace fake_cuda
