// The shadow of memory: who wrote and read each place last. Every access is judged before it happens.
#pragma once
#include "ordering.h"

// How many threads have read a place since it was written, as far as it matters for the next write.
enum class Readers : uint8_t { none, one, lanes_of_a_warp, warps_of_a_block, blocks };

// How a place is accessed: the sum of these.
enum Mode : unsigned { kRead = 1, kWrite = 2, kAtomic = 4 };
static const char* verb(unsigned mode) { return mode & kWrite ? "write" : "read"; }

struct Cell {
    Stamp write, read;  // the last plain write; the last read
    uint32_t write_pc, read_pc;
    uint32_t lanes;  // which lanes read, where they are all of one warp
    bool has_atomics, read_atomic, in_flight;
    Readers readers;
};

static std::vector<Region> regions;
static Region* last_region;

// Static shared memory: for each byte, the number of its array (from 1), 0 in the gaps. g++ puts a
// flag of its own beside arrays whose elements have constructors (__half): it is not judged.
constexpr uint16_t kCompilersOwn = UINT16_MAX;
struct Symbol {
    uintptr_t offset;
    size_t size;
    const char* name;
    bool touched;
};
static std::vector<Symbol> shared_symbols;
static std::vector<uint16_t> symbol_at;
static uintptr_t shared_low;
static size_t shared_size;

static void name_thread(char* out, size_t size, uint32_t id) {
    uint32_t block = id / threads_per_block, t = id % threads_per_block;
    snprintf(out, size, "block (%u, %u, %u) thread (%u, %u, %u)", block % grid_dim.x, block / grid_dim.x % grid_dim.y,
             block / (grid_dim.x * grid_dim.y), t % block_dim.x, t / block_dim.x % block_dim.y,
             t / (block_dim.x * block_dim.y));
}

static const char* array_name(const Region& r, size_t offset, long long* within) {
    *within = (long long)offset;
    if (&r != &active->static_region || offset >= symbol_at.size() || !symbol_at[offset]) return r.name;
    const Symbol& s = shared_symbols[symbol_at[offset] - 1];
    *within = (long long)(offset - s.offset);
    return s.name;
}

static void __attribute__((noinline, cold)) race(Region& r, size_t offset, const char* what, uint32_t other,
                                                 uint32_t other_pc, uintptr_t pc) {
    char who[120];
    name_thread(who, sizeof who, other);
    long long within;
    const char* array = array_name(r, offset, &within);
    if (!settings.collect_races) fail_at(array, within, pc, other_pc, "race", "%s by %s", what, who);
    for (const RacePair& known : races)
        if (known.pc == pc && known.other_pc == other_pc) return;
    if (races.size() >= 64) return;
    RacePair pair{pc, other_pc, {}};
    char text[300];
    snprintf(text, sizeof text, "%s by %s", what, who);
    describe(pair.fault, "race", text, pc);
    snprintf(pair.fault.array, sizeof pair.fault.array, "%s", array);
    pair.fault.offset = within;
    pair.fault.other_pc = other_pc;
    races.push_back(pair);
}

// Halve the granule until an access fits: what was seen so far covered whole granules.
static void refine(Region& r, uintptr_t offset, unsigned size) {
    unsigned granule = r.granule;
    while (granule > 1 && (offset % granule || size % granule)) granule /= 2;
    if (granule == r.granule) return;
    unsigned factor = r.granule / granule;
    std::vector<Cell> finer(r.cells.size() * factor);
    for (size_t i = 0; i < finer.size(); i++) finer[i] = r.cells[i / factor];
    std::unordered_map<size_t, Atomics> atomics;
    for (const auto& entry : r.atomics)
        for (unsigned k = 0; k < factor; k++) atomics[entry.first * factor + k] = entry.second;
    r.cells.swap(finer);
    r.atomics.swap(atomics);
    r.granule = granule;
}

// Whether a barrier of a whole block, after that epoch, happened before what the current thread does.
static bool block_is_ordered(uint32_t block, uint32_t epoch) {
    if (epoch < grid_epoch || (block == active->id && epoch < active->epoch)) return true;
    for (const Knowledge* knowledge : {&current->acquired, &active->acquired})
        for (const Release& r : *knowledge)
            if (r.block == block && epoch < r.epoch) return true;
    return false;
}

static bool reads_are_ordered(const Cell& c) {
    const uint32_t lane = c.read.thread % threads_per_block % kWarp;
    switch (c.readers) {
        case Readers::none: return true;
        case Readers::one: return ordered(c.read);
        case Readers::blocks: return c.read.epoch < grid_epoch;
        case Readers::warps_of_a_block: return block_is_ordered(c.read.thread / threads_per_block, c.read.epoch);
        case Readers::lanes_of_a_warp: break;
    }
    for (uint32_t rest = c.lanes; rest; rest &= rest - 1)
        if (!ordered({c.read.thread - lane + __builtin_ctz(rest), c.read.epoch, c.read.clock})) return false;
    return true;
}

static void add_reader(Cell& c, const Stamp& me) {
    const bool same_block = c.readers != Readers::none && c.read.thread / threads_per_block == active->id;
    const uint32_t bit = 1u << own_lane();
    if (c.readers == Readers::none || c.read.epoch < grid_epoch ||
        (same_block && c.readers != Readers::blocks && c.read.epoch < me.epoch)) {
        c.readers = Readers::one;
        c.lanes = bit;
    } else if (!same_block) {
        c.readers = Readers::blocks;
    } else if (c.readers == Readers::one || c.readers == Readers::lanes_of_a_warp) {
        uint32_t other = c.read.thread % threads_per_block;
        if (other / kWarp != current->lane_of_block / kWarp) {
            c.readers = Readers::warps_of_a_block;
        } else {
            const uint32_t* seen = own_warp().seen[own_lane()];
            uint32_t kept = 0;
            for (uint32_t rest = c.lanes; rest; rest &= rest - 1) {
                int lane = __builtin_ctz(rest);
                if (seen[lane] < c.read.clock) kept |= 1u << lane;
            }
            c.lanes = kept | bit;
            c.readers = c.lanes == bit ? Readers::one : Readers::lanes_of_a_warp;
        }
    }
    c.read = me;
}

static void note_atomic(Region& r, size_t cell, const Stamp& me, uint32_t pc) {
    Atomics& a = r.atomics[cell];
    if (!r.cells[cell].has_atomics) {
        a.rival.epoch = 0;
    } else if (a.last.thread != me.thread && !ordered(a.last)) {
        a.rival = a.last;
        a.rival_pc = a.last_pc;
    }
    a.last = me;
    a.last_pc = pc;
    r.cells[cell].has_atomics = true;
}

// A plain access must be ordered after all atomics of other threads.
static void check_atomics(Region& r, size_t cell, bool write, uintptr_t pc) {
    const Atomics& a = r.atomics[cell];
    const char* what = write ? "written after an atomic" : "read after an atomic";
    if (a.last.thread != current->id && !ordered(a.last)) race(r, cell * r.granule, what, a.last.thread, a.last_pc, pc);
    else if (a.rival.epoch && a.rival.thread != current->id && !ordered(a.rival))
        race(r, cell * r.granule, what, a.rival.thread, a.rival_pc, pc);
}

static inline void judge(Region& r, uintptr_t offset, unsigned size, unsigned mode, uintptr_t pc) {
    const bool write = mode & kWrite, atomic = mode & kAtomic;
    if (offset % r.granule || size % r.granule) refine(r, offset, size);
    const Stamp me{current->id, active->epoch, own_warp().clock};
    const uint32_t short_pc = (uint32_t)(pc - image_low);
    const size_t last = (offset + size - 1) / r.granule;
    for (size_t i = offset / r.granule; i <= last; i++) {
        Cell& c = r.cells[i];
        if (r.shared) {  // the cells of an earlier block are as good as empty
            if (c.write.epoch < active->first_epoch) c.write.epoch = 0;
            if (c.read.epoch < active->first_epoch) c.readers = Readers::none;
            if (c.has_atomics && r.atomics[i].last.epoch < active->first_epoch) c.has_atomics = false;
            if ((mode & kRead) && !c.write.epoch && !c.has_atomics) {
                long long within;
                const char* array = array_name(r, i * r.granule, &within);
                fail_at(array, within, pc, 0, "uninitialised-shared",
                        "%s of shared memory that no thread of the block has written", write ? "an atomic" : "a read");
            }
        }
        if (c.in_flight)
            race(r, i * r.granule, write ? "written while a cp.async into it is under way, issued"
                                         : "read while a cp.async into it is under way, issued",
                 c.write.thread, c.write_pc, pc);
        if (c.write.epoch && c.write.thread != me.thread && !ordered(c.write))
            race(r, i * r.granule, write ? "written after a write" : "read after a write", c.write.thread, c.write_pc, pc);
        if (c.has_atomics && !atomic) check_atomics(r, i, write, pc);
        if (write) {
            if (c.readers != Readers::none && !(c.readers == Readers::one && c.read.thread == me.thread) &&
                !(atomic && c.read_atomic) && !reads_are_ordered(c))
                race(r, i * r.granule, "written after a read", c.read.thread, c.read_pc, pc);
            c.readers = Readers::none;
            if (atomic) {
                note_atomic(r, i, me, short_pc);
            } else {
                c.write = me;
                c.write_pc = short_pc;
                c.has_atomics = false;
            }
        } else if (c.readers == Readers::one && c.read.thread == me.thread) {
            c.read = me;
            c.read_pc = short_pc;
            c.read_atomic = c.read_atomic && atomic;
        } else {
            const bool first = c.readers == Readers::none;
            add_reader(c, me);
            c.read_pc = short_pc;
            c.read_atomic = atomic && (first || c.read_atomic);
        }
    }
}

static Region* find_region(uintptr_t address) {
    if (last_region && address - last_region->low < last_region->size) return last_region;
    for (Region& r : regions)
        if (address - r.low < r.size) return last_region = &r;
    return nullptr;
}

static void __attribute__((noinline, cold)) outside(uintptr_t address, unsigned size, unsigned mode, uintptr_t pc) {
    const Region* nearest = nullptr;
    uintptr_t distance = UINTPTR_MAX;
    for (const Region& r : regions) {
        uintptr_t d = address < r.low ? r.low - address : address - (r.low + r.size);
        if (d < distance) distance = d, nearest = &r;
    }
    if (nearest && distance < (1u << 30))
        fail_at(nearest->name, (long long)(address - nearest->low), pc, 0, "out-of-bounds",
                "%s of %u bytes outside of every argument; the nearest has %zu bytes", verb(mode), size, nearest->size);
    else if (address < 4096)
        FAIL(pc, "out-of-bounds", "%s of %u bytes through a null pointer", verb(mode), size);
    else
        FAIL(pc, "out-of-bounds", "%s of %u bytes at an address of no argument", verb(mode), size);
}

static void check_shared(uintptr_t offset, unsigned size, unsigned mode, uintptr_t pc) {
    if (offset + size <= shared_size && symbol_at[offset] && symbol_at[offset + size - 1] == symbol_at[offset]) {
        shared_symbols[symbol_at[offset] - 1].touched = true;
        return;
    }
    const Symbol* nearest = nullptr;
    for (const Symbol& s : shared_symbols)
        if (s.offset <= offset && (!nearest || s.offset > nearest->offset)) nearest = &s;
    fail_at(nearest ? nearest->name : "static shared memory", (long long)(offset - (nearest ? nearest->offset : 0)), pc, 0,
            "out-of-bounds", "%s of %u bytes outside of a shared array of %zu bytes", verb(mode), size,
            nearest ? nearest->size : 0);
}

static void count_access(uintptr_t pc) {
    counts[0]++;
    if (counts[0] > settings.access_budget)
        FAIL(pc, "runaway", "no end after %lld accesses", settings.access_budget);
    if (time_is_up) FAIL(pc, "runaway", "no end after %.3g s of CPU time", settings.time_budget);
}

static inline void access(uintptr_t address, unsigned size, unsigned mode, uintptr_t pc) {
    if (!current) return;
    if (on_a_stack(address)) {
        if (!on_own_stack(address))
            FAIL(pc, "out-of-bounds", "%s of another thread's local variable", verb(mode));
        if (time_is_up) count_access(pc);
        return;
    }
    count_access(pc);
    if (address - shared_low < shared_size) {
        if (symbol_at[address - shared_low] == kCompilersOwn) return;
        check_shared(address - shared_low, size, mode, pc);
        if (settings.checked) judge(active->static_region, address - shared_low, size, mode, pc);
        return;
    }
    Region& dynamic = active->dynamic_region;
    if (address - (dynamic.low - kSlack) < dynamic.size + 2 * kSlack) {
        long long offset = (long long)(address - dynamic.low);
        if (offset < 0 || offset + size > (long long)dynamic.size)
            fail_at(dynamic.name, offset, pc, 0, "out-of-bounds",
                    "%s of %u bytes outside of the %zu bytes that the launch gave", verb(mode), size,
                    dynamic.size);
        if (settings.checked) judge(dynamic, offset, size, mode, pc);
        return;
    }
    Region* r = find_region(address);
    if (!r) {
        if (!(mode & kWrite) && address >= image_low && address < image_high) return;  // a literal
        outside(address, size, mode, pc);
        return;
    }
    size_t offset = address - r->low;
    if (offset + size > r->size)
        fail_at(r->name, (long long)offset, pc, 0, "out-of-bounds", "%s of %u bytes across the end, at %zu bytes",
                verb(mode), size, r->size);
    if ((mode & kWrite) && !r->writable)
        fail_at(r->name, (long long)offset, pc, 0, "const-write", "write of %u bytes to an array that is const for the kernel", size);
    if (settings.checked) judge(*r, offset, size, mode, pc);
}

// Which kernel code spins on: let the others run now and then.
static void strong_access(uintptr_t address, unsigned size, unsigned mode, uintptr_t pc) {
    if (!current) return;
    if (address % size) FAIL(pc, "misaligned", "an atomic of %u bytes at an address that is no multiple of it", size);
    if (++current->spins >= 32) {
        current->spins = 0;
        to_scheduler();
    }
    access(address, size, mode | kAtomic, pc);
    if (!on_a_stack(address)) synchronise_at(address, mode & kRead, mode & kWrite);
}

extern "C" void trine_touch_atomic(const void* address, unsigned size, void* pc) {
    strong_access((uintptr_t)address, size, kRead | kWrite, (uintptr_t)pc);
}

extern "C" void trine_touch(const void* address, size_t size, int is_write, void* pc) {
    if (size) access((uintptr_t)address, (unsigned)size, is_write ? kWrite : kRead, (uintptr_t)pc);
}
extern "C" void trine_yield() { to_scheduler(); }
