/* TensorWasm host imports for guests written in C: launch CUDA kernels (PTX) from WebAssembly.
 *
 * Needs no C library. These are declarations and inline functions only, so a guest imports no more than
 * it calls. Pointers are addresses in the guest's own memory, which must be exported as `memory` (linkers do).
 *
 *     static const char ptx[] = { ... };
 *     int64_t kernel = wasi_cuda_load(ptx, sizeof ptx, "vector_add");
 *     wasi_cuda_argv argv = {0};
 *     wasi_cuda_arg_pointer(&argv, a, n * sizeof *a);
 *     wasi_cuda_arg_i32(&argv, n);
 *     int32_t code = wasi_cuda_run(kernel, (wasi_cuda_dim3){blocks, 1, 1}, (wasi_cuda_dim3){256, 1, 1}, 0, &argv);
 *
 * A launch is complete when it returns; kernels read and write the guest's memory in place, so nothing is copied.
 */
#ifndef WASI_CUDA_H
#define WASI_CUDA_H

#include <stddef.h>
#include <stdint.h>

#define WASI_CUDA_IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
/* Define WASI_CUDA_VERSION as 3 before including this file for what wasi:cuda/host@0.3.0 has besides, and
 * WASI_TENSOR_VERSION as 2 for wasi:tensor/host@0.2.0. */
#ifndef WASI_CUDA_VERSION
#define WASI_CUDA_VERSION 2
#endif
#ifndef WASI_TENSOR_VERSION
#define WASI_TENSOR_VERSION 1
#endif

#if WASI_CUDA_VERSION >= 3
#define WASI_CUDA_HOST "wasi:cuda/host@0.3.0"
#else
#define WASI_CUDA_HOST "wasi:cuda/host@0.2.0"
#endif
#if WASI_TENSOR_VERSION >= 2
#define WASI_TENSOR_HOST "wasi:tensor/host@0.2.0"
#else
#define WASI_TENSOR_HOST "wasi:tensor/host@0.1.0"
#endif
#define WASI_SCHEDULER_HOST "wasi:scheduler/host@0.1.0"

/* Results below 0. wasi_cuda_last_error_copy() has the text. */
enum wasi_cuda_code {
    WASI_CUDA_OK = 0,
    WASI_CUDA_NOT_AVAILABLE = -1,      /* this tenant may not use the device */
    WASI_CUDA_INVALID_POINTER = -2,    /* a range outside the guest's memory */
    WASI_CUDA_UNKNOWN_KERNEL = -3,     /* not an id this instance was given */
    WASI_CUDA_MALFORMED_PTX = -4,      /* not PTX, an unsupported instruction, or no such entry */
    WASI_CUDA_LAUNCH_FAILED = -5,
    WASI_CUDA_QUOTA_EXCEEDED = -6,
    WASI_CUDA_INTERNAL = -7,
    WASI_CUDA_INVALID_DIMENSIONS = -8, /* grid, block or shared memory */
    WASI_CUDA_INVALID_ARGUMENTS = -9,  /* argv does not fit the kernel's parameters */
    WASI_CUDA_ARGV_TOO_LARGE = -10,    /* more than 4096 bytes or 128 records */
    WASI_CUDA_INVALID_HANDLE = -11,    /* not a device allocation of this instance */
    WASI_CUDA_SATURATED = -12,         /* no permit within the allowed wait: try again later */
    WASI_CUDA_DEADLINE = -13,          /* too little time is left to start a launch */
};

/* --- wasi:cuda: kernels ----------------------------------------------------------------------------------------- */

/* Compile PTX text and choose one of its entries. Returns a kernel id >= 0, or a code. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_load_ptx")
int64_t wasi_cuda_load_ptx(const void *ptx, size_t ptx_bytes, const char *entry, size_t entry_bytes);

/* Run a kernel to its end. `argv` holds packed records, see below. Returns 0 or a code. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_launch")
int32_t wasi_cuda_launch(int64_t kernel, int32_t grid_x, int32_t grid_y, int32_t grid_z, int32_t block_x,
                         int32_t block_y, int32_t block_z, int32_t shared_bytes, const void *argv, size_t argv_bytes);

/* Wait for all launches of this instance. Returns 0 or a code. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_sync")
int32_t wasi_cuda_sync(void);

/* Bytes of the latest failed call's text; 0 after a call that succeeded. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_last_error_len")
int32_t wasi_cuda_last_error_len(void);

/* Copy that text, at most `bytes`; no NUL is added. Returns the bytes copied, or a code. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_last_error_copy")
int32_t wasi_cuda_last_error_copy(void *destination, size_t bytes);

#if WASI_CUDA_VERSION >= 3
/* As wasi_cuda_launch(), with a ticket >= 0 for 0. On a device that runs a launch at once it is complete as well. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_launch_async")
int64_t wasi_cuda_launch_async(int64_t kernel, int32_t grid_x, int32_t grid_y, int32_t grid_z, int32_t block_x,
                               int32_t block_y, int32_t block_z, int32_t shared_bytes, const void *argv,
                               size_t argv_bytes);

/* Choose an entry of a kernel that this tenant has published, by name and version. Returns a kernel id >= 0, or a code. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_load_named")
int64_t wasi_cuda_load_named(const char *name, size_t name_bytes, const char *version, size_t version_bytes,
                             const char *entry, size_t entry_bytes);

/* Forget a kernel: its id is unknown then, its memory is given back. Returns 0 or a code. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_unload")
int32_t wasi_cuda_unload(int64_t kernel);

/* What the device is, as JSON of at most 1024 bytes; as much as fits is copied. Returns the bytes copied, or a code. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_device_info")
int32_t wasi_cuda_device_info(void *destination, size_t bytes);
#endif

/* --- wasi:cuda: device memory ----------------------------------------------------------------------------------- */

/* 64-bit numbers cross these calls as two 32-bit halves; the wrappers below split them. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_alloc")
int64_t wasi_cuda_alloc_halves(uint32_t size_low, uint32_t size_high);
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_free")
int32_t wasi_cuda_free_halves(uint32_t handle_low, uint32_t handle_high);
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_memcpy_h2d")
int32_t wasi_cuda_memcpy_h2d_halves(uint32_t handle_low, uint32_t handle_high, const void *source, size_t bytes);
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_memcpy_d2h")
int32_t wasi_cuda_memcpy_d2h_halves(void *destination, uint32_t handle_low, uint32_t handle_high, size_t bytes);

/* Allocate device memory. Returns a handle >= 1, or a code. */
static inline int64_t wasi_cuda_alloc(uint64_t bytes) {
    return wasi_cuda_alloc_halves((uint32_t)bytes, (uint32_t)(bytes >> 32));
}

/* Free an allocation. Returns 0 or a code. What is left is freed when the instance ends. */
static inline int32_t wasi_cuda_free(int64_t handle) {
    return wasi_cuda_free_halves((uint32_t)handle, (uint32_t)((uint64_t)handle >> 32));
}

/* Copy to the start of an allocation. Returns 0 or a code. */
static inline int32_t wasi_cuda_memcpy_h2d(int64_t handle, const void *source, size_t bytes) {
    return wasi_cuda_memcpy_h2d_halves((uint32_t)handle, (uint32_t)((uint64_t)handle >> 32), source, bytes);
}

/* Copy from the start of an allocation. Returns 0 or a code. */
static inline int32_t wasi_cuda_memcpy_d2h(void *destination, int64_t handle, size_t bytes) {
    return wasi_cuda_memcpy_d2h_halves(destination, (uint32_t)handle, (uint32_t)((uint64_t)handle >> 32), bytes);
}

#if WASI_CUDA_VERSION >= 3
enum wasi_cuda_direction {
    WASI_CUDA_TO_DEVICE = 0,
    WASI_CUDA_FROM_DEVICE = 1,
};

/* Copy between the guest's memory and any place in an allocation. Returns 0 or a code. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_memcpy")
int32_t wasi_cuda_memcpy(int64_t handle, int64_t offset, void *pointer, size_t bytes, int32_t direction);

/* Set bytes of an allocation to the low byte of `value`. Returns 0 or a code. */
WASI_CUDA_IMPORT(WASI_CUDA_HOST, "wasi_cuda_memset")
int32_t wasi_cuda_memset(int64_t handle, int64_t offset, int32_t value, int64_t bytes);
#endif

/* --- argv: a tag byte, then the value, for each kernel parameter in order ---------------------------------------- */

enum wasi_cuda_tag {
    WASI_CUDA_TAG_I32 = 1,
    WASI_CUDA_TAG_I64 = 2,
    WASI_CUDA_TAG_F32 = 3,
    WASI_CUDA_TAG_F64 = 4,
    WASI_CUDA_TAG_U32 = 5,
    WASI_CUDA_TAG_U64 = 6,
    WASI_CUDA_TAG_POINTER = 7, /* u32 address, u32 length in bytes */
    WASI_CUDA_TAG_DEVICE_POINTER = 8, /* version 3: u64 handle, u64 offset in bytes */
    WASI_CUDA_TAG_F16 = 9, /* version 3: f16, or any other two bytes */
    WASI_CUDA_TAG_STRUCT = 10, /* version 3: u16 length, bytes */
};

/* Room for the records, of 5 or 9 bytes each, device pointers 17. Define it before including this file to have more, at most 4096. */
#ifndef WASI_CUDA_ARGV_BYTES
#define WASI_CUDA_ARGV_BYTES 256
#endif

/* Start with `wasi_cuda_argv argv = {0};`. Records past the end set `full`, which wasi_cuda_run() refuses. */
typedef struct {
    uint32_t bytes;
    uint32_t full;
    uint8_t records[WASI_CUDA_ARGV_BYTES];
} wasi_cuda_argv;

/* Inlined always, so that the copy is a store and no C library is needed. */
__attribute__((always_inline))
static inline void wasi_cuda_arg(wasi_cuda_argv *argv, enum wasi_cuda_tag tag, const void *value, uint32_t bytes) {
    if (argv->full || bytes + 1 > WASI_CUDA_ARGV_BYTES - argv->bytes) {
        argv->full = 1;
        return;
    }
    uint8_t *at = argv->records + argv->bytes;
    *at = (uint8_t)tag;
    __builtin_memcpy(at + 1, value, bytes);
    argv->bytes += bytes + 1;
}

static inline void wasi_cuda_arg_i32(wasi_cuda_argv *argv, int32_t value) {
    wasi_cuda_arg(argv, WASI_CUDA_TAG_I32, &value, sizeof value);
}

static inline void wasi_cuda_arg_u32(wasi_cuda_argv *argv, uint32_t value) {
    wasi_cuda_arg(argv, WASI_CUDA_TAG_U32, &value, sizeof value);
}

static inline void wasi_cuda_arg_i64(wasi_cuda_argv *argv, int64_t value) {
    wasi_cuda_arg(argv, WASI_CUDA_TAG_I64, &value, sizeof value);
}

static inline void wasi_cuda_arg_u64(wasi_cuda_argv *argv, uint64_t value) {
    wasi_cuda_arg(argv, WASI_CUDA_TAG_U64, &value, sizeof value);
}

static inline void wasi_cuda_arg_f32(wasi_cuda_argv *argv, float value) {
    wasi_cuda_arg(argv, WASI_CUDA_TAG_F32, &value, sizeof value);
}

static inline void wasi_cuda_arg_f64(wasi_cuda_argv *argv, double value) {
    wasi_cuda_arg(argv, WASI_CUDA_TAG_F64, &value, sizeof value);
}

/* Memory the kernel may be given: the host checks that all `bytes` lie inside the guest's memory. */
static inline void wasi_cuda_arg_pointer(wasi_cuda_argv *argv, const void *pointer, size_t bytes) {
    const uint32_t window[2] = {(uint32_t)(uintptr_t)pointer, (uint32_t)bytes};
    wasi_cuda_arg(argv, WASI_CUDA_TAG_POINTER, window, sizeof window);
}

#if WASI_CUDA_VERSION >= 3
/* A place in device memory. */
static inline void wasi_cuda_arg_device(wasi_cuda_argv *argv, int64_t handle, uint64_t offset) {
    const uint64_t place[2] = {(uint64_t)handle, offset};
    wasi_cuda_arg(argv, WASI_CUDA_TAG_DEVICE_POINTER, place, sizeof place);
}

/* The bits of an f16, or of another number of two bytes. */
static inline void wasi_cuda_arg_16(wasi_cuda_argv *argv, uint16_t bits) {
    wasi_cuda_arg(argv, WASI_CUDA_TAG_F16, &bits, sizeof bits);
}

/* A structure by value, of the kernel parameter's own size. */
static inline void wasi_cuda_arg_struct(wasi_cuda_argv *argv, const void *value, uint16_t bytes) {
    wasi_cuda_arg(argv, WASI_CUDA_TAG_STRUCT, &bytes, sizeof bytes);
    if (argv->full || bytes > WASI_CUDA_ARGV_BYTES - argv->bytes) {
        argv->full = 1;
        return;
    }
    for (uint32_t at = 0; at < bytes; at++) {
        argv->records[argv->bytes++] = ((const uint8_t *)value)[at];
    }
}
#endif

/* --- shorthands -------------------------------------------------------------------------------------------------- */

typedef struct {
    int32_t x, y, z;
} wasi_cuda_dim3;

/* wasi_cuda_load_ptx() with the entry as a C string. */
static inline int64_t wasi_cuda_load(const void *ptx, size_t ptx_bytes, const char *entry) {
    size_t entry_bytes = 0;
    while (entry[entry_bytes]) {
        entry_bytes++;
    }
    return wasi_cuda_load_ptx(ptx, ptx_bytes, entry, entry_bytes);
}

/* wasi_cuda_launch() with packed arguments. */
static inline int32_t wasi_cuda_run(int64_t kernel, wasi_cuda_dim3 grid, wasi_cuda_dim3 block, int32_t shared_bytes,
                                    const wasi_cuda_argv *argv) {
    if (argv->full) {
        return WASI_CUDA_ARGV_TOO_LARGE;
    }
    return wasi_cuda_launch(kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared_bytes, argv->records,
                            argv->bytes);
}

/* --- wasi:tensor: the input of an invocation ---------------------------------------------------------------------- */

/* Bytes of input this invocation was given. */
WASI_CUDA_IMPORT(WASI_TENSOR_HOST, "input-len")
int32_t wasi_tensor_input_len(void);

/* Copy the input from its start, as much as fits. Returns the bytes copied, or below 0. */
WASI_CUDA_IMPORT(WASI_TENSOR_HOST, "read-input")
int32_t wasi_tensor_read_input(void *destination, size_t bytes);

#if WASI_TENSOR_VERSION >= 2
/* Copy the input from `offset` on, as much as fits. Returns the bytes copied, 0 behind its end, or below 0. */
WASI_CUDA_IMPORT(WASI_TENSOR_HOST, "read-input-at")
int32_t wasi_tensor_read_input_at(size_t offset, void *destination, size_t bytes);
#endif

/* Send bytes to whoever listens. Returns 0; -1 when this invocation has no listener, -2 for a bad range or size. */
WASI_CUDA_IMPORT(WASI_TENSOR_HOST, "emit-chunk")
int32_t wasi_tensor_emit_chunk(const void *chunk, size_t bytes);

/* Wait until what was emitted is on its way. Returns as wasi_tensor_emit_chunk(). */
WASI_CUDA_IMPORT(WASI_TENSOR_HOST, "flush")
int32_t wasi_tensor_flush(void);

/* --- wasi:scheduler ------------------------------------------------------------------------------------------------ */

enum wasi_scheduler_advice {
    WASI_SCHEDULER_GO_ON = 0,
    WASI_SCHEDULER_HURRY = 1, /* less than 50 ms are left */
    WASI_SCHEDULER_STOP = 2,
};

WASI_CUDA_IMPORT(WASI_SCHEDULER_HOST, "yield")
int32_t wasi_scheduler_yield(void);

/* Milliseconds left of this invocation; UINT32_MAX when it has no deadline. */
WASI_CUDA_IMPORT(WASI_SCHEDULER_HOST, "deadline-remaining-ms")
uint32_t wasi_scheduler_deadline_remaining_ms(void);

#endif
