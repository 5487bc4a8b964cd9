// The runtime of the CUDA emulator: runs a kernel's threads as fibers and judges what they do.
//
// Compiled once, without instrumentation, and loaded before the kernels' modules. One launch at a
// time: launch.py holds a lock.
#include <link.h>
#include <math.h>
#include <xmmintrin.h>

#include "runtime/state.h"
#include "runtime/fibers.h"
#include "runtime/ordering.h"
#include "runtime/shadow.h"
#include "runtime/barriers.h"
#include "runtime/warps.h"
#include "runtime/tensor_core.h"
#include "runtime/hooks.h"

extern "C" uint3 trine_thread_index() { return current->index; }
extern "C" uint3 trine_block_index() { return current->block->index; }
extern "C" uint3 trine_block_dim() { return block_dim; }
extern "C" uint3 trine_grid_dim() { return grid_dim; }
extern "C" void* trine_dynamic_shared() { return active->dynamic; }

// --- blocks

static void make_block(Block& b, size_t dynamic_size) {
    const int count = (int)threads_per_block;
    b.thread_count = count;
    b.threads.resize(count);
    b.order.resize(count);
    b.warps.resize((count + kWarp - 1) / kWarp);
    for (Warp& w : b.warps) w.clock = 1;
    b.dynamic = (char*)aligned_alloc(1024, (dynamic_size + 2 * kSlack + 2047) / 1024 * 1024) + kSlack;
    b.static_region.low = shared_low;
    b.static_region.size = shared_size;
    b.static_region.name = "static shared memory";
    b.dynamic_region.low = (uintptr_t)b.dynamic;
    b.dynamic_region.size = dynamic_size;
    b.dynamic_region.name = "dynamic shared memory";
    for (Region* r : {&b.static_region, &b.dynamic_region}) {
        r->shared = true;
        if (settings.checked) r->cells.assign(r->size / r->granule + 1, Cell{});
    }
}

static void begin_block(Block& b, uint32_t id) {
    b.id = id;
    b.index = {id % grid_dim.x, id / grid_dim.x % grid_dim.y, id / (grid_dim.x * grid_dim.y)};
    b.next_new = b.done = b.waiting = b.at_grid = 0;
    b.epoch = b.first_epoch = ++epoch_counter;
    b.acquired.clear();
    for (int i = 0; i < (int)b.warps.size(); i++) {
        Warp& w = b.warps[i];
        w.clock++;  // what an earlier block's lanes had seen counts no more
        w.waiting = 0;
        const int lanes = std::min(kWarp, b.thread_count - i * kWarp);
        w.returned = lanes == kWarp ? 0 : ~0u << lanes;  // lanes that do not exist
    }
    for (int i = 0; i < b.thread_count; i++) {
        Thread& t = b.threads[i];
        t.block = &b;
        t.warp = &b.warps[i / kWarp];
        t.lane = (uint32_t)(i % kWarp);
        t.lane_of_block = (uint32_t)i;
        t.id = id * threads_per_block + (uint32_t)i;
        t.index = {i % block_dim.x, i / block_dim.x % block_dim.y, i / (block_dim.x * block_dim.y)};
        t.state = State::fresh;
        t.copy_group = 0;
        t.spins = 0;
        t.at_fence.clear();
        t.acquired.clear();
        t.pending.clear();
        t.copies.clear();
        b.order[i] = settings.order == 1 ? b.thread_count - 1 - i : i;
    }
    if (settings.order == 2) {
        std::mt19937 generator(settings.seed * 7919u + id);
        std::shuffle(b.order.begin(), b.order.end(), generator);
    }
    if (b.dynamic_region.size) memset(b.dynamic, 0xff, b.dynamic_region.size);
}

// Put a block's static shared memory in place; a co-resident block's is kept while another runs.
static void activate(Block& b) {
    if (active == &b) return;
    if (active && settings.cooperative && shared_size)
        active->static_image.assign((char*)shared_low, (char*)shared_low + shared_size);
    active = &b;
    if (!shared_size) return;
    if (b.static_image.empty()) memset((void*)shared_low, 0xff, shared_size);
    else memcpy((void*)shared_low, b.static_image.data(), shared_size);
}

// Let a block's threads run until each has ended or waits; return whether one did anything.
static bool run_block(Block& b) {
    bool progress = false;
    while (b.next_new < b.thread_count && !fault.raised && !free_fibers.empty()) {
        Thread* t = &b.threads[b.order[b.next_new++]];
        start(t);
        resume(t);
        progress = true;
    }
    for (int k = 0; k < b.thread_count && !fault.raised; k++) {
        Thread* t = &b.threads[b.order[k]];
        if (t->state != State::ready) continue;
        resume(t);
        progress = true;
    }
    current = nullptr;
    return progress;
}

// Name the places where threads wait, how many do, and the first of them.
static void report_deadlock() {
    static const char* const what[] = {"", "", "__syncthreads", "a warp operation", "a barrier of the grid", ""};
    struct Place {
        State state;
        int line, threads;
        const Thread* first;
    };
    std::vector<Place> places;
    for (auto& b : blocks)
        for (Thread& t : b->threads) {
            if (t.state == State::done || t.state == State::fresh) continue;
            auto same = [&](const Place& p) { return p.state == t.state && p.line == t.line; };
            auto found = std::find_if(places.begin(), places.end(), same);
            if (found == places.end()) places.push_back({t.state, t.line, 1, &t});
            else found->threads++;
        }
    char text[900] = "";
    int used = 0;
    for (const Place& p : places) {
        if (used > 700) break;
        const uint3 b = p.first->block->index, t = p.first->index;
        used += snprintf(text + used, sizeof text - used, "%s %d at %s in line %d (first block (%u, %u, %u) thread (%u, %u, %u))",
                         used ? "," : "", p.threads, what[(int)p.state], p.line, b.x, b.y, b.z, t.x, t.y, t.z);
    }
    FAIL(0, "deadlock", "no thread can go on:%s", text);
}

static void run_until_done() {
    while (!fault.raised) {
        bool progress = false, done = true;
        for (auto& b : blocks) {
            if (b->done == b->thread_count) continue;
            activate(*b);
            progress = run_block(*b) || progress;
            done = done && b->done == b->thread_count;
            if (fault.raised) return;
        }
        if (done) return;
        if (!progress) report_deadlock();
        if (time_is_up) FAIL(0, "runaway", "no end after %.3g s of CPU time", settings.time_budget);
    }
}

static void run_grid(size_t dynamic_size) {
    const uint32_t count = grid_dim.x * grid_dim.y * grid_dim.z;
    const uint32_t together = settings.cooperative ? count : 1;
    blocks.clear();
    active = nullptr;
    for (uint32_t i = 0; i < together; i++) {
        blocks.push_back(std::make_unique<Block>());
        make_block(*blocks.back(), dynamic_size);
    }
    for (uint32_t first = 0; first < count && !fault.raised; first += together) {
        for (uint32_t i = 0; i < together; i++) {
            const uint32_t position = first + i;
            begin_block(*blocks[i], settings.order == 1 ? count - 1 - position : position);
        }
        active = nullptr;
        run_until_done();
    }
    for (auto& b : blocks) free(b->dynamic - kSlack);
    blocks.clear();
    active = nullptr;
}

// --- what launch.py calls

struct Bound {
    uintptr_t address, low, high, tls;
    size_t tls_size;
};
static int find_module(dl_phdr_info* info, size_t, void* data) {
    Bound* bound = (Bound*)data;
    bool inside = false;
    uintptr_t high = 0;
    size_t tls_size = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto& header = info->dlpi_phdr[i];
        const uintptr_t start = info->dlpi_addr + header.p_vaddr;
        if (header.p_type == PT_TLS) tls_size = header.p_memsz;
        if (header.p_type != PT_LOAD) continue;
        inside = inside || bound->address - start < header.p_memsz;
        high = std::max(high, start + header.p_memsz);
    }
    if (!inside) return 0;
    bound->low = info->dlpi_addr;
    bound->high = high;
    bound->tls = (uintptr_t)info->dlpi_tls_data;
    bound->tls_size = tls_size;
    return 1;
}

extern "C" {
// Make the module that holds `address` the current one; `touch` makes its TLS segment exist.
uintptr_t trine_bind(uintptr_t address, void* (*touch)()) {
    touch();
    Bound bound{address, 0, 0, 0, 0};
    dl_iterate_phdr(find_module, &bound);
    image_low = bound.low;
    image_high = bound.high;
    shared_low = bound.tls;
    shared_size = bound.tls ? bound.tls_size : 0;
    shared_symbols.clear();
    symbol_at.assign(shared_size, 0);
    regions.clear();
    last_region = nullptr;
    return bound.low;
}
void trine_add_symbol(uintptr_t offset, size_t size, const char* name) {
    if (*name) shared_symbols.push_back({offset, size, name, false});
    const uint16_t number = *name ? (uint16_t)shared_symbols.size() : kCompilersOwn;
    for (size_t i = offset; i < offset + size && i < shared_size; i++) symbol_at[i] = number;
}
void trine_add_region(uintptr_t low, size_t size, unsigned granule, int writable, const char* name) {
    Region r;
    r.low = low;
    r.size = size;
    r.granule = granule;
    r.writable = writable;
    r.name = name;
    regions.push_back(std::move(r));
}
int trine_launch(void (*function)(void**), void** arguments, const unsigned* grid, const unsigned* block, size_t dynamic_size,
                 const Settings* chosen) {
    settings = *chosen;
    kernel = function;
    kernel_arguments = arguments;
    grid_dim = {grid[0], grid[1], grid[2]};
    block_dim = {block[0], block[1], block[2]};
    threads_per_block = block[0] * block[1] * block[2];
    fault = Fault{};
    races.clear();
    released_at.clear();
    memset(counts, 0, sizeof counts);
    epoch_counter = 1;
    grid_epoch = 0;
    const size_t threads = settings.cooperative ? (size_t)grid[0] * grid[1] * grid[2] * threads_per_block : threads_per_block;
    if (threads > kMaxThreads || !prepare_stacks((int)threads)) {
        FAIL(0, "launch-limit", "a co-resident grid of %zu threads; at most %d can be together", threads, kMaxThreads);
        return 1;
    }
    if (settings.checked)
        for (Region& r : regions) r.cells.assign((r.size + r.granule - 1) / r.granule, Cell{});
    const unsigned control = _mm_getcsr();
    _mm_setcsr(control | 0x8040);  // denormals are zero, since CuPy compiles with -ftz=true
    watch();
    run_grid(dynamic_size);
    stop_watching();
    _mm_setcsr(control);
    current = nullptr;
    for (Region& r : regions) {
        std::vector<Cell>().swap(r.cells);
        r.atomics.clear();
    }
    return fault.raised || !races.empty();
}
const Fault* trine_fault() { return fault.raised ? &fault : nullptr; }
int trine_race_count() { return (int)races.size(); }
const Fault* trine_race(int i) { return &races[i].fault; }
const long long* trine_counts() { return counts; }
size_t trine_shared_used() {
    size_t used = 0;
    for (const Symbol& s : shared_symbols) used += s.touched ? s.size : 0;
    return used;
}
}
