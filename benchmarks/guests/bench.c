/* Measures launches from inside a guest: from before the call to after it, on the monotonic clock. */
#include "guest.h"
#include "wasi_cuda.h"

static const char empty_ptx[] = {
#embed "empty.ptx"
};
static const char vector_add_ptx[] = {
#embed "vector_add.ptx"
};

enum { CLOCK_MONOTONIC = 1, COUNT = 1024, BLOCK = 256, INVALID_CHOICE = -1000, NO_MEMORY = -1001, NO_CLOCK = -1002 };

__attribute__((import_module("wasi_snapshot_preview1"), import_name("clock_time_get")))
int32_t clock_time_get(int32_t clock, uint64_t precision_ns, uint64_t *time_ns);

static float a[COUNT], b[COUNT], c[COUNT];
static int64_t kernel = -1;
static wasi_cuda_argv argv;
static int32_t blocks, threads;
static uint64_t *samples;
static int32_t sample_count;

static int32_t launch(void) {
    return wasi_cuda_launch(kernel, blocks, 1, 1, threads, 1, 1, 0, argv.records, argv.bytes);
}

/* Choose what the loops launch: 0 the empty kernel, one thread; 1 vector_add over 1,024 floats, 4 blocks of 256.
 * Returns 0, INVALID_CHOICE, or the code of a load that failed. */
GUEST_EXPORT("prepare") int32_t prepare(int32_t which) {
    argv = (wasi_cuda_argv){0};
    if (which == 0) {
        kernel = wasi_cuda_load(empty_ptx, sizeof empty_ptx, "empty");
        blocks = threads = 1;
    } else if (which == 1) {
        kernel = wasi_cuda_load(vector_add_ptx, sizeof vector_add_ptx, "vector_add");
        blocks = COUNT / BLOCK;
        threads = BLOCK;
        for (int32_t i = 0; i < COUNT; i++) {
            a[i] = (float)i;
            b[i] = (float)(2 * i);
            c[i] = -1.0f;
        }
        wasi_cuda_arg_pointer(&argv, a, sizeof a);
        wasi_cuda_arg_pointer(&argv, b, sizeof b);
        wasi_cuda_arg_pointer(&argv, c, sizeof c);
        wasi_cuda_arg_i32(&argv, COUNT);
    } else {
        return INVALID_CHOICE;
    }
    return kernel < 0 ? (int32_t)kernel : 0;
}

/* How many elements of vector_add's result are right: 1024 after a launch. */
GUEST_EXPORT("right_elements") int32_t right_elements(void) {
    int32_t right = 0;
    for (int32_t i = 0; i < COUNT; i++) {
        right += c[i] == (float)(3 * i);
    }
    return right;
}

/* n launches. Returns 0, or the first code that is not 0. */
GUEST_EXPORT("launch_loop") int32_t launch_loop(int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const int32_t code = launch();
        if (code) {
            return code;
        }
    }
    return 0;
}

/* Room for n samples behind the program's memory; what was there is gone. */
static int32_t reserve(int32_t n) {
    sample_count = 0;
    if (n < 0) {
        return INVALID_CHOICE;
    }
    samples = guest_arena(sizeof *samples * (uint64_t)n);
    if (!samples) {
        return NO_MEMORY;
    }
    for (int32_t i = 0; i < n; i++) {
        samples[i] = 0; /* touches the pages before the clock runs */
    }
    return 0;
}

/* n launches, each timed on its own. Returns 0, or the first code that is not 0. */
GUEST_EXPORT("time_loop") int32_t time_loop(int32_t n) {
    const int32_t refused = reserve(n);
    if (refused) {
        return refused;
    }
    for (int32_t i = 0; i < n; i++) {
        uint64_t before, after;
        const int32_t failed_before = clock_time_get(CLOCK_MONOTONIC, 1, &before);
        const int32_t code = launch();
        const int32_t failed_after = clock_time_get(CLOCK_MONOTONIC, 1, &after);
        if (code) {
            return code;
        }
        if (failed_before || failed_after) {
            return NO_CLOCK;
        }
        samples[i] = after - before;
        sample_count = i + 1;
    }
    return 0;
}

/* As time_loop() with nothing between the two readings: what the clock itself costs. */
GUEST_EXPORT("clock_loop") int32_t clock_loop(int32_t n) {
    const int32_t refused = reserve(n);
    if (refused) {
        return refused;
    }
    for (int32_t i = 0; i < n; i++) {
        uint64_t before, after;
        const int32_t failed_before = clock_time_get(CLOCK_MONOTONIC, 1, &before);
        const int32_t failed_after = clock_time_get(CLOCK_MONOTONIC, 1, &after);
        if (failed_before || failed_after) {
            return NO_CLOCK;
        }
        samples[i] = after - before;
        sample_count = i + 1;
    }
    return 0;
}

/* Where the samples of the latest loop are: u64 nanoseconds, samples_len() of them. */
GUEST_EXPORT("samples_ptr") int32_t samples_ptr(void) {
    return (int32_t)(uintptr_t)samples;
}

GUEST_EXPORT("samples_len") int32_t samples_len(void) {
    return sample_count;
}

/* The i-th sample in nanoseconds, for callers that cannot read memory; -1 when there is none. */
GUEST_EXPORT("sample") int64_t sample(int32_t i) {
    return i >= 0 && i < sample_count ? (int64_t)samples[i] : -1;
}

/* Does nothing and returns 0. */
GUEST_EXPORT("noop") int32_t noop(void) {
    return 0;
}
