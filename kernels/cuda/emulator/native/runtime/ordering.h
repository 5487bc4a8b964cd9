// Which accesses are ordered: by program order, barriers, __syncwarp, and fences with atomics.
//
// Two accesses to one place of which one writes are a race unless they are ordered or both atomic.
// An access is stamped with its thread, its block's epoch (which a barrier of the block advances)
// and its warp's clock (which __syncwarp and fences advance). Shuffles and votes order nothing, as
// CUDA's guide says.
#pragma once
#include "state.h"

static Warp& own_warp() { return *current->warp; }
static unsigned own_lane() { return current->lane; }

static bool known_from(const Knowledge& knowledge, const Stamp& s) {
    for (const Release& r : knowledge) {
        if (r.block != s.thread / threads_per_block) continue;
        if (s.epoch < r.epoch) return true;
        if (s.epoch != r.epoch) continue;
        if (s.thread == r.thread && s.clock <= r.clock) return true;
        uint32_t mine = r.thread % threads_per_block, other = s.thread % threads_per_block;
        if (mine / kWarp == other / kWarp && r.seen[other % kWarp] >= s.clock) return true;
    }
    return false;
}

// Whether an access stamped `s` happened before what the current thread does now.
static bool ordered(const Stamp& s) {
    if (s.thread == current->id || s.epoch < grid_epoch) return true;
    if (s.thread / threads_per_block == active->id) {
        if (s.epoch < active->epoch) return true;
        uint32_t other = s.thread % threads_per_block;
        if (other / kWarp == current->lane_of_block / kWarp && own_warp().seen[own_lane()][other % kWarp] >= s.clock)
            return true;
    }
    return known_from(current->acquired, s) || known_from(active->acquired, s);
}

// --- fences and atomics: what one thread released, another acquires

static std::unordered_map<uintptr_t, Knowledge> released_at;

static void learn(Knowledge& into, const Knowledge& from) {
    for (const Release& r : from) {
        bool found = false;
        for (Release& known : into)
            if (known.block == r.block && known.thread == r.thread) {
                if (known.epoch < r.epoch || (known.epoch == r.epoch && known.clock < r.clock)) known = r;
                found = true;
                break;
            }
        if (!found) into.push_back(r);
    }
}

static void acquire_pending(Thread& thread) {
    if (thread.pending.empty()) return;
    learn(thread.acquired, thread.pending);
    thread.pending.clear();
}

extern "C" void trine_fence(int) {
    acquire_pending(*current);
    Warp& warp = own_warp();
    Release mine{active->id, current->id, active->epoch, warp.clock, {}};
    memcpy(mine.seen, warp.seen[own_lane()], sizeof mine.seen);
    warp.clock++;  // later accesses are not covered
    current->at_fence = current->acquired;
    learn(current->at_fence, active->acquired);
    learn(current->at_fence, {mine});
}

// An atomic, or volatile, access publishes what its thread had fenced, and hears what others had.
static void synchronise_at(uintptr_t address, bool reads, bool writes) {
    if (reads) {
        auto found = released_at.find(address);
        if (found != released_at.end()) learn(current->pending, found->second);
    }
    if (!writes) return;
    if (!reads) released_at.erase(address);  // a plain store ends the sequence of releases
    if (!current->at_fence.empty()) learn(released_at[address], current->at_fence);
}
