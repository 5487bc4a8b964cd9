// The block's barrier, the grid's barrier of a co-resident launch, and what is wrong about them.
#pragma once
#include "fibers.h"
#include "shadow.h"

static const char* const kBarrierNames[] = {"__syncthreads", "__syncthreads_count", "__syncthreads_and", "__syncthreads_or"};

static void release_barrier(Block& block) {
    for (Thread& t : block.threads) {
        if (t.state != State::at_barrier) continue;
        t.state = State::ready;
        t.result = (uint64_t)block.barrier_value;
        acquire_pending(t);
        if (!t.acquired.empty()) {
            learn(block.acquired, t.acquired);
            t.acquired.clear();
        }
    }
    block.waiting = 0;
    block.epoch = ++epoch_counter;
    counts[1]++;
}

extern "C" int trine_block_barrier(int line, int kind, int predicate) {
    Block& block = *active;
    if (time_is_up) FAIL(CALLER, "runaway", "no end after %.3g s of CPU time", settings.time_budget);
    if (block.done)
        FAIL(CALLER, "barrier-divergence", "%s at line %d, but %d of the block's threads have already returned",
             kBarrierNames[kind], line, block.done);
    if (block.waiting && block.barrier_line != line)
        FAIL(CALLER, "barrier-divergence", "%s at line %d, while other threads of the block wait at line %d",
             kBarrierNames[kind], line, block.barrier_line);
    if (block.waiting && block.barrier_kind != kind)
        FAIL(CALLER, "barrier-divergence", "%s at line %d, while other threads wait at a %s there", kBarrierNames[kind], line,
             kBarrierNames[block.barrier_kind]);
    if (!block.waiting) {
        block.barrier_line = line;
        block.barrier_kind = kind;
        block.barrier_value = kind == 2;
    }
    if (kind == 1) block.barrier_value += predicate;
    if (kind == 2) block.barrier_value &= predicate;
    if (kind == 3) block.barrier_value |= predicate;
    Thread* me = current;
    me->state = State::at_barrier;
    me->line = line;
    if (++block.waiting == block.thread_count) release_barrier(block);
    to_scheduler();
    return (int)me->result;
}

static std::vector<std::unique_ptr<Block>> blocks;

extern "C" void trine_grid_barrier(int line) {
    if (!settings.cooperative)
        FAIL(CALLER, "unsupported", "a barrier of the grid at line %d in a launch that is not cooperative", line);
    if (active->done)
        FAIL(CALLER, "barrier-divergence", "a barrier of the grid at line %d, but %d of the block's threads have already returned",
             line, active->done);
    current->state = State::at_grid;
    current->line = line;
    active->at_grid++;
    bool all = true;
    for (auto& block : blocks) all = all && block->at_grid == block->thread_count;
    if (all) {
        grid_epoch = ++epoch_counter;
        for (auto& block : blocks) {
            block->at_grid = 0;
            block->epoch = grid_epoch;
            for (Thread& t : block->threads) t.state = State::ready;
        }
    }
    to_scheduler();
}
