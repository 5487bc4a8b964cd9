// What the runtime knows of a launch: threads, warps, blocks, and the error that ended it.
#pragma once
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

struct uint3 {
    unsigned x, y, z;
};

constexpr int kWarp = 32;
constexpr int kMaxBlockThreads = 1024;
constexpr size_t kSlack = 4096;  // bytes before and behind dynamic shared memory
constexpr int kMaxThreads = 16384;  // at once: one block, or the blocks of a co-resident grid

// What a thread had done when it passed a fence, for whoever later synchronises with it.
struct Release {
    uint32_t block, thread, epoch, clock;
    uint32_t seen[kWarp];  // the clocks of its warp's lanes that it was ordered after
};
using Knowledge = std::vector<Release>;

// A cp.async that was issued and has not been waited for.
struct Copy {
    char* to;
    const char* from;
    unsigned size, from_size;
    uintptr_t pc;
    int group;
};

enum class State { fresh, ready, at_barrier, at_warp, at_grid, done };

struct Block;
struct Warp;

struct Thread {
    Block* block;
    Warp* warp;
    uint32_t lane;  // within its warp
    uint3 index;
    uint32_t lane_of_block;  // x + dim.x * (y + dim.y * z)
    uint32_t id;             // over the whole grid
    State state;
    void* stack_pointer;
    int fiber;
    int line;  // where it waits
    uint64_t result;
    struct {
        int kind, argument, width;
        unsigned mask;
        uint64_t value;
        void* out;
        const void* in[3];
    } warp_call;
    // What it knew at its last fence, empty before the first; what it acquired; what it will have
    // acquired at its next fence or barrier.
    Knowledge at_fence, acquired, pending;
    std::vector<Copy> copies;
    int copy_group;
    unsigned spins;
};

struct Warp {
    uint32_t clock;
    uint32_t waiting, returned;  // lanes at a warp operation; lanes whose thread has ended
    uint32_t seen[kWarp][kWarp];  // [lane][other]: up to which clock `other` is ordered before
};

struct Stamp {
    uint32_t thread, epoch, clock;
};

// The atomics on a place since its last plain write: the last one, and one by another thread that
// the last is not ordered after.
struct Atomics {
    Stamp last, rival;
    uint32_t last_pc, rival_pc;
};

struct Cell;
// A range of memory with a shadow: one cell for each `granule` bytes.
struct Region {
    uintptr_t low = 0;
    size_t size = 0;
    unsigned granule = 4;
    bool writable = true, shared = false;
    const char* name = "";
    std::vector<Cell> cells;
    std::unordered_map<size_t, Atomics> atomics;  // by cell, for the few that have any
};

struct Block {
    uint3 index;
    uint32_t id;
    int thread_count, next_new, done;
    std::vector<Thread> threads;
    std::vector<int> order;
    std::vector<Warp> warps;
    uint32_t epoch, first_epoch;
    // the barrier that threads wait at
    int waiting, barrier_line, barrier_kind, barrier_value;
    int at_grid;
    Knowledge acquired;
    std::vector<char> static_image;  // of a co-resident block that does not run now
    char* dynamic;
    Region static_region, dynamic_region;
};

static Thread* current;  // null while no kernel code runs
static Block* active;    // whose static shared memory is in place
static uint3 block_dim, grid_dim;
static uint32_t threads_per_block;
static uint32_t epoch_counter, grid_epoch;
static void (*kernel)(void**);
static void** kernel_arguments;

// The module's load address, so that a program counter becomes an offset for addr2line.
static uintptr_t image_low, image_high;

struct Settings {
    int checked, cooperative, order;
    unsigned seed;
    int collect_races;  // go on after a race: its lines may carry a directive that allows it
    long long access_budget;
    double time_budget;
};
static Settings settings;

struct Fault {
    bool raised;
    char kind[40], message[1600], array[128];
    uint3 block, thread;
    long long offset;
    uintptr_t pc, other_pc;
};
static Fault fault;
struct RacePair {
    uintptr_t pc, other_pc;
    Fault fault;
};
static std::vector<RacePair> races;
static long long counts[4];  // accesses, barriers, warp operations, switches

extern "C" void trine_switch(void** save, void* load);
static void* scheduler_stack_pointer;

static void leave_kernel() {
    current->state = State::done;
    void* dropped;
    trine_switch(&dropped, scheduler_stack_pointer);
}

static void describe(Fault& f, const char* kind, const char* message, uintptr_t pc) {
    f = Fault{};
    f.raised = true;
    f.offset = -1;
    snprintf(f.kind, sizeof f.kind, "%s", kind);
    snprintf(f.message, sizeof f.message, "%s", message);
    if (current) {
        f.block = current->block->index;
        f.thread = current->index;
    }
    f.pc = pc >= image_low && pc < image_high ? pc - image_low : 0;
}

// Note the first fault and leave the kernel; does not return when kernel code runs.
static void fail_at(const char* array, long long offset, uintptr_t pc, uintptr_t other_pc, const char* kind,
                    const char* format, ...) {
    if (!fault.raised) {
        char text[1600];
        va_list list;
        va_start(list, format);
        vsnprintf(text, sizeof text, format, list);
        va_end(list);
        describe(fault, kind, text, pc);
        snprintf(fault.array, sizeof fault.array, "%s", array);
        fault.offset = offset;
        fault.other_pc = other_pc;
    }
    if (current) leave_kernel();
}
#define FAIL(pc, kind, ...) fail_at("", -1, (uintptr_t)(pc), 0, kind, __VA_ARGS__)

#define CALLER __builtin_return_address(0)
extern "C" void trine_fail(const char* kind, const char* message) { FAIL(CALLER, kind, "%s", message); }
