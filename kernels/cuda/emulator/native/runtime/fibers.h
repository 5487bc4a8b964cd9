// Fibers: each CUDA thread has a stack of its own, and one thread of the system runs them in turn.
#pragma once
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "state.h"

// Save the registers that a call preserves, change the stack, restore.
asm(R"(
.text
.globl trine_switch
.type trine_switch,@function
trine_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

constexpr size_t kPage = 4096, kStack = 64 << 10;
constexpr size_t kSlot = kStack + kPage;  // the lowest page of a slot cannot be touched
static char* stacks;
static int guarded_slots;
static std::vector<int> free_fibers;

static bool on_a_stack(uintptr_t address) { return address - (uintptr_t)stacks < kSlot * kMaxThreads; }
static bool on_own_stack(uintptr_t address) {
    return address - ((uintptr_t)stacks + current->fiber * kSlot + kPage) < kStack;
}

static bool prepare_stacks(int count) {
    if (!stacks) {
        void* memory = mmap(nullptr, kSlot * kMaxThreads, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return false;
        stacks = (char*)memory;
    }
    for (; guarded_slots < count; guarded_slots++) mprotect(stacks + guarded_slots * kSlot, kPage, PROT_NONE);
    free_fibers.clear();
    for (int i = count - 1; i >= 0; i--) free_fibers.push_back(i);
    return true;
}

static void to_scheduler() {
    counts[3]++;
    trine_switch(&current->stack_pointer, scheduler_stack_pointer);
}

static void resume(Thread* thread) {
    current = thread;
    trine_switch(&scheduler_stack_pointer, thread->stack_pointer);
}

static void thread_ended(Thread* thread);

static void fiber_main() {
    for (;;) {
        kernel(kernel_arguments);
        thread_ended(current);
        Block* block = current->block;
        // The next thread takes over this stack, so a kernel without barriers never switches.
        if (block->next_new < block->thread_count && !fault.raised) {
            int fiber = current->fiber;
            current = &block->threads[block->order[block->next_new++]];
            current->fiber = fiber;
            current->state = State::ready;
            continue;
        }
        free_fibers.push_back(current->fiber);
        to_scheduler();
    }
}

static void start(Thread* thread) {
    thread->fiber = free_fibers.back();
    free_fibers.pop_back();
    thread->state = State::ready;
    void** top = (void**)(stacks + (thread->fiber + 1) * kSlot - 64);
    *--top = nullptr;  // where a return address would be: keeps the stack aligned as after a call
    *--top = (void*)fiber_main;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    thread->stack_pointer = top;
}

// --- a stack that overflows, and a kernel that never ends, come as signals

static volatile sig_atomic_t time_is_up;
static struct sigaction old_segv, old_alarm;
static timer_t timer;
static bool have_timer;
static char signal_stack[64 << 10];
static stack_t old_signal_stack;  // Python's own, where it has one

static void on_segv(int number, siginfo_t* info, void* context) {
    uintptr_t address = (uintptr_t)info->si_addr;
    if (current && on_a_stack(address)) {
        fail_at("", -1, 0, 0, "stack-overflow", "a thread's local variables and calls need more than %zu KiB of stack", kStack >> 10);
    }
    sigaction(SIGSEGV, &old_segv, nullptr);  // not ours: fault again under the old handler
    (void)number, (void)context;
}

// The next access sees the first signal. Where none comes until the third, the kernel loops without
// touching memory: it is in no function of the runtime then, and is left from here.
static void on_alarm(int, siginfo_t*, void*) {
    if (current && time_is_up >= 2)
        FAIL(0, "runaway", "no end after %.3g s of CPU time, in a loop without memory accesses", settings.time_budget);
    time_is_up = time_is_up + 1;
}

static void watch() {
    stack_t alternative{};
    alternative.ss_sp = signal_stack;
    alternative.ss_size = sizeof signal_stack;
    sigaltstack(&alternative, &old_signal_stack);
    struct sigaction action {};
    action.sa_sigaction = on_segv;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &old_segv);
    time_is_up = 0;
    if (settings.time_budget <= 0) return;
    action.sa_sigaction = on_alarm;
    sigaction(SIGRTMIN + 3, &action, &old_alarm);
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    event.sigev_signo = SIGRTMIN + 3;
    have_timer = timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0;
    if (!have_timer) return;
    itimerspec when{};
    when.it_value.tv_sec = (time_t)settings.time_budget;
    when.it_value.tv_nsec = (long)((settings.time_budget - (double)when.it_value.tv_sec) * 1e9) + 1;
    when.it_interval.tv_nsec = 100000000;
    timer_settime(timer, 0, &when, nullptr);
}

static void stop_watching() {
    if (have_timer) {
        timer_delete(timer);
        have_timer = false;
        sigaction(SIGRTMIN + 3, &old_alarm, nullptr);
    }
    sigaction(SIGSEGV, &old_segv, nullptr);
    sigaltstack(&old_signal_stack, nullptr);
}
