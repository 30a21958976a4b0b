/* Adds two vectors of n floats with a CUDA kernel and checks every element of the sum. */
#include "guest.h"
#include "wasi_cuda.h"

static const char ptx[] = {
#embed "vector_add.ptx"
};

enum {
    BLOCK = 256,
    INVALID_COUNT = -1000, /* n is below 1 or above MAX_COUNT */
    NO_MEMORY = -1001,     /* memory cannot hold three arrays of n floats */
    MAX_COUNT = 300000000, /* three arrays of floats stay below 4 GiB */
};

typedef struct {
    float *a, *b, *c;
    int32_t n;
} vectors;

static void report(const char *what, int64_t code) {
    char text[512];
    const int32_t bytes = wasi_cuda_last_error_copy(text, sizeof text);
    guest_print(GUEST_STDERR, "vector_add: ");
    guest_print(GUEST_STDERR, what);
    guest_print(GUEST_STDERR, " gave code ");
    guest_print_number(GUEST_STDERR, code);
    guest_print(GUEST_STDERR, ": ");
    if (bytes > 0) {
        guest_write(GUEST_STDERR, text, (size_t)bytes);
    }
    guest_print(GUEST_STDERR, "\n");
}

/* Elements are whole numbers below 2^21, which floats hold and add exactly. */
static float element_a(int32_t i) {
    return (float)(i & 0xfffff);
}

static float element_b(int32_t i) {
    return (float)(3 * (i & 0x3ffff));
}

/* Fill a and b, and c with what no sum can be. Returns 0, INVALID_COUNT or NO_MEMORY. */
static int32_t prepare(int32_t n, vectors *v) {
    if (n < 1 || n > MAX_COUNT) {
        guest_print(GUEST_STDERR, "vector_add: n must be from 1 to 300000000\n");
        return INVALID_COUNT;
    }
    float *arena = guest_arena(3 * sizeof(float) * (uint64_t)n);
    if (!arena) {
        guest_print(GUEST_STDERR, "vector_add: no memory for three arrays of this size; use a smaller n\n");
        return NO_MEMORY;
    }
    *v = (vectors){arena, arena + n, arena + 2 * (size_t)n, n};
    for (int32_t i = 0; i < n; i++) {
        v->a[i] = element_a(i);
        v->b[i] = element_b(i);
        v->c[i] = -1.0f;
    }
    return 0;
}

/* c = a + b on the device. Returns 0 or a code of wasi_cuda.h. */
static int32_t add(const vectors *v) {
    const int64_t kernel = wasi_cuda_load(ptx, sizeof ptx, "vector_add");
    if (kernel < 0) {
        report("load", kernel);
        return (int32_t)kernel;
    }
    wasi_cuda_argv argv = {0};
    const size_t bytes = sizeof(float) * (size_t)v->n;
    wasi_cuda_arg_pointer(&argv, v->a, bytes);
    wasi_cuda_arg_pointer(&argv, v->b, bytes);
    wasi_cuda_arg_pointer(&argv, v->c, bytes);
    wasi_cuda_arg_i32(&argv, v->n);
    const wasi_cuda_dim3 grid = {(v->n + BLOCK - 1) / BLOCK, 1, 1}, block = {BLOCK, 1, 1};
    const int32_t code = wasi_cuda_run(kernel, grid, block, 0, &argv);
    if (code) {
        report("launch", code);
    }
    return code;
}

/* Adds n elements and returns how many sums are right: n when all are. Below 0: a code of wasi_cuda.h,
 * INVALID_COUNT or NO_MEMORY, with the reason on stderr. */
GUEST_EXPORT("run") int32_t run(int32_t n) {
    vectors v;
    int32_t code = prepare(n, &v);
    if (!code) {
        code = add(&v);
    }
    if (code) {
        return code;
    }
    int32_t right = 0;
    for (int32_t i = 0; i < n; i++) {
        right += v.c[i] == element_a(i) + element_b(i);
    }
    return right;
}

/* Adds n elements and returns the sum of all sums; NaN when it cannot, with the reason on stderr. */
GUEST_EXPORT("checksum") double checksum(int32_t n) {
    vectors v;
    if (prepare(n, &v) || add(&v)) {
        return __builtin_nan("");
    }
    double total = 0;
    for (int32_t i = 0; i < n; i++) {
        total += (double)v.c[i];
    }
    return total;
}
