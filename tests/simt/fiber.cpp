#include "tests/simt/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace drydock::tests {
namespace {

constexpr size_t kStackBytes = 256 * 1024;

Fiber* starting = nullptr;  // the fiber whose first instruction is next
Fiber* left = nullptr;      // the fiber that was switched away from

// Stacks are kept for the next launch: a block has hundreds.
std::vector<std::byte*>& spare_stacks() {
  static std::vector<std::byte*> stacks;
  return stacks;
}

std::byte* take_stack() {
  if (!spare_stacks().empty()) {
    std::byte* stack = spare_stacks().back();
    spare_stacks().pop_back();
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(stack, kStackBytes);  // its last fiber did not unwind
#endif
    return stack;
  }
  void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(memory);
}

void run_starting() {
  starting->start();
  std::abort();  // a body never returns
}

}  // namespace

#if defined(__x86_64__)
// swapcontext saves the signal mask by two system calls, which would be most of the emulator's time. System V ABI:
// these six registers and the stack pointer are the callee's to keep.
extern "C" void drydock_switch_stack(void** save, void* next);
asm(R"(
.text
.globl drydock_switch_stack
.type drydock_switch_stack, @function
drydock_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size drydock_switch_stack, .-drydock_switch_stack
)");

namespace {

void* first_frame(std::byte* stack) {
  // Popped by the switch: six registers, then the address that `ret` goes to; 8 below a multiple of 16 at entry.
  auto* top = reinterpret_cast<uint64_t*>(stack + kStackBytes);
  for (int i = 1; i <= 8; ++i) top[-i] = 0;
  top[-2] = reinterpret_cast<uint64_t>(&run_starting);
  return top - 8;
}
void switch_stack(void** save, void* next) { drydock_switch_stack(save, next); }

}  // namespace
#else
namespace {

void* first_frame(std::byte* stack) {
  auto* context = new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = kStackBytes;
  context->uc_link = nullptr;
  makecontext(context, run_starting, 0);
  return context;
}
void switch_stack(void** save, void* next) {
  ucontext_t here;
  *save = &here;  // lives on the stack that is left, as long as it is left
  swapcontext(&here, static_cast<ucontext_t*>(next));
}

}  // namespace
#endif

Fiber::Fiber(void (*body)(void*), void* argument)
    : stack_(take_stack()), body_(body), argument_(argument), bottom_(stack_), bytes_(kStackBytes) {
  stack_pointer_ = first_frame(stack_);
}

Fiber::~Fiber() {
  if (stack_ != nullptr) spare_stacks().push_back(stack_);
}

void Fiber::start() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &left->bottom_, &left->bytes_);
#endif
  body_(argument_);
}

void Fiber::resume(Fiber& from, [[maybe_unused]] bool from_is_done) {
  starting = this;
  left = &from;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(from_is_done ? nullptr : &from.fake_stack_, bottom_, bytes_);
#endif
  switch_stack(&from.stack_pointer_, stack_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack_, &left->bottom_, &left->bytes_);
#endif
}

}  // namespace drydock::tests
