// Warp operations complete when every live lane of their mask has arrived at the same one.
#pragma once
#include "barriers.h"

enum WarpKind { kSync, kIndex, kUp, kDown, kXor, kBallot, kAny, kAll, kMatch, kAdd, kMin, kMax, kMatrix, kLoadMatrix };
static const char* const kWarpNames[] = {
    "__syncwarp",  "__shfl_sync",      "__shfl_up_sync",    "__shfl_down_sync",  "__shfl_xor_sync",
    "__ballot_sync", "__any_sync",     "__all_sync",        "__match_any_sync",  "__reduce_add_sync",
    "__reduce_min_sync", "__reduce_max_sync", "mma.sync",   "ldmatrix"};

static void complete_matrix(int shape, Thread** lanes);
static void complete_load_matrix(int count, int transposed, Thread** lanes);

// Lanes have met: their clocks advance, and each is ordered after what all had done.
static void order_lanes(Warp& warp, unsigned lanes) {
    uint32_t joined[kWarp] = {};
    for (int l = 0; l < kWarp; l++)
        if ((lanes >> l) & 1)
            for (int other = 0; other < kWarp; other++) joined[other] = std::max(joined[other], warp.seen[l][other]);
    for (int l = 0; l < kWarp; l++)
        if ((lanes >> l) & 1) joined[l] = warp.clock;
    for (int l = 0; l < kWarp; l++)
        if ((lanes >> l) & 1) memcpy(warp.seen[l], joined, sizeof joined);
    warp.clock++;
}

static int source_lane(const Thread& t, int lane) {
    const int width = t.warp_call.width, argument = t.warp_call.argument;
    const int segment = lane / width * width, within = lane % width;
    switch (t.warp_call.kind) {
        case kIndex: return segment + (int)((unsigned)argument % width);
        case kUp: return within < argument ? lane : lane - argument;
        case kDown: return within + argument >= width ? lane : lane + argument;
        default: return (lane ^ argument) >= segment + width ? lane : lane ^ argument;
    }
}

static int64_t combine(int kind, int64_t a, int64_t b) {
    return kind == kAdd ? a + b : kind == kMin ? std::min(a, b) : std::max(a, b);
}

// Complete the operation that `waiting` stands at, if all its lanes have arrived.
static void try_warp(Thread* waiting) {
    Block& block = *waiting->block;
    const int number = waiting->lane_of_block / kWarp, base = number * kWarp;
    const auto& call = waiting->warp_call;
    Thread* lanes[kWarp] = {};
    unsigned need = 0, have = 0;
    for (int l = 0; l < kWarp && base + l < block.thread_count; l++) {
        if (!((call.mask >> l) & 1)) continue;
        Thread& other = block.threads[base + l];
        if (other.state == State::done) continue;
        need |= 1u << l;
        if (other.state != State::at_warp) continue;
        if (other.warp_call.kind != call.kind || other.warp_call.mask != call.mask || other.line != waiting->line) {
            current = &other;
            FAIL(0, "warp-divergence", "lane %d is at %s in line %d with mask %08x, but lane %d of that mask at %s in line %d with mask %08x",
                 (int)waiting->lane, kWarpNames[call.kind], waiting->line, call.mask, l,
                 kWarpNames[other.warp_call.kind], other.line, other.warp_call.mask);
        }
        have |= 1u << l;
        lanes[l] = &other;
    }
    if (!have || need != have) return;
    counts[2]++;
    unsigned ballot = 0;
    int64_t total = 0;
    bool first = true;
    for (int l = 0; l < kWarp; l++) {
        if (!lanes[l]) continue;
        const auto& c = lanes[l]->warp_call;
        if (c.value) ballot |= 1u << l;
        total = first ? (int64_t)c.value : combine(c.kind, total, (int64_t)c.value);
        first = false;
    }
    for (int l = 0; l < kWarp; l++) {
        if (!lanes[l]) continue;
        Thread& t = *lanes[l];
        if (call.kind >= kIndex && call.kind <= kXor) {
            const int source = source_lane(t, l);
            if (source < 0 || source >= kWarp || !lanes[source]) {
                current = &t;
                FAIL(0, "warp-undefined", "%s in line %d: lane %d reads lane %d, which has returned, does not exist or is not in mask %08x",
                     kWarpNames[call.kind], t.line, l, source, call.mask);
                return;
            }
            t.result = lanes[source]->warp_call.value;
        } else if (call.kind == kMatch) {
            t.result = 0;
            for (int m = 0; m < kWarp; m++)
                if (lanes[m] && lanes[m]->warp_call.value == t.warp_call.value) t.result |= 1u << m;
        } else if (call.kind >= kAdd && call.kind <= kMax) {
            t.result = (uint64_t)total;
        } else {
            t.result = call.kind == kBallot ? ballot : call.kind == kAny ? ballot != 0 : ballot == have;
        }
    }
    if (call.kind == kMatrix || call.kind == kLoadMatrix) {
        if (have != 0xffffffffu) {
            current = waiting;
            FAIL(0, "warp-undefined", "%s in line %d with lanes %08x only; it takes a whole warp", kWarpNames[call.kind],
                 waiting->line, have);
            return;
        }
        if (call.kind == kMatrix) complete_matrix(call.argument, lanes);
        else complete_load_matrix(call.argument, call.width, lanes);
    }
    if (call.kind == kSync) order_lanes(block.warps[number], have);
    for (Thread* t : lanes)
        if (t) t->state = State::ready;
    block.warps[number].waiting &= ~have;
}

static uint64_t enter_warp(int line, int kind, unsigned mask, uint64_t value, int argument, int width, void* pc) {
    Thread* me = current;
    const int lane = (int)me->lane;
    if (time_is_up) FAIL(pc, "runaway", "no end after %.3g s of CPU time", settings.time_budget);
    if (!((mask >> lane) & 1))
        FAIL(pc, "warp-divergence", "%s in line %d is called by lane %d, which is not in its mask %08x", kWarpNames[kind], line,
             lane, mask);
    if (kind >= kIndex && kind <= kXor && (width < 1 || width > kWarp || (width & (width - 1))))
        FAIL(pc, "warp-undefined", "%s in line %d with width %d; it must be a power of 2 up to 32", kWarpNames[kind], line, width);
    me->warp_call.kind = kind;
    me->warp_call.mask = mask;
    me->warp_call.value = value;
    me->warp_call.argument = argument;
    me->warp_call.width = width;
    me->line = line;
    me->state = State::at_warp;
    me->warp->waiting |= 1u << lane;
    if ((mask & ~me->warp->returned & ~me->warp->waiting) == 0) try_warp(me);
    current = me;
    to_scheduler();
    return me->result;
}

extern "C" uint64_t trine_warp(int line, int kind, unsigned mask, uint64_t value, int argument, int width) {
    return enter_warp(line, kind, mask, value, argument, width, CALLER);
}

static void thread_ended(Thread* thread) {
    thread->state = State::done;
    thread->warp->returned |= 1u << thread->lane;
    Block& block = *thread->block;
    block.done++;
    if (!thread->copies.empty())
        FAIL(thread->copies[0].pc, "in-flight-copy", "a thread returns before it has waited for its cp.async");
    if (block.waiting)
        FAIL(0, "barrier-divergence", "a thread returns, while %d of the block's threads wait at %s in line %d", block.waiting,
             kBarrierNames[block.barrier_kind], block.barrier_line);
    if (!thread->warp->waiting) return;
    const uint32_t base = thread->lane_of_block - thread->lane;  // others may have waited for this lane only
    for (uint32_t l = 0; l < kWarp && base + l < (uint32_t)block.thread_count; l++)
        if (block.threads[base + l].state == State::at_warp) try_warp(&block.threads[base + l]);
    current = thread;
}
