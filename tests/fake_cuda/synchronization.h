// Host-device synchronisations: the host waits until the device has done all that was asked of it.
#pragma once
#include <atomic>

namespace fake_cuda {

inline std::atomic<int64_t> num_synchronizations{0};
inline void (*listener)(const char*) = nullptr;  // told the operator, in the thread that waits

inline void synchronize(const char* name) {
  ++num_synchronizations;
  if (listener) listener(name);
}

}  // namespace fake_cuda
