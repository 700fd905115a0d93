#pragma once
// A thread of control with a stack of its own that is switched to and from by hand: what an emulated GPU thread runs
// on.
#include <cstddef>
#include <vector>

namespace drydock::tests {

// A fiber's `body` must not throw, and must end by switching to another fiber for good. One OS thread only.
class Fiber {
 public:
  Fiber() = default;  // the caller's own stack: only switched away from and back to
  explicit Fiber(void (*body)(void* argument), void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Leaves `from`, which must be the one that runs, and goes on in `this` until someone switches back.
  void resume(Fiber& from, bool from_is_done = false);

  // Called by the machine code that starts a fiber.
  void start();

 private:
  void* stack_pointer_ = nullptr;
  std::byte* stack_ = nullptr;  // owned; null for the caller's own
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  // For the address sanitizer, which must know the stack it is on.
  const void* bottom_ = nullptr;
  size_t bytes_ = 0;
  void* fake_stack_ = nullptr;
};

}  // namespace drydock::tests
