/* What the example guests share: exports, text output through WASI, memory that grows. Needs no C library. */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>

#define GUEST_EXPORT(name) __attribute__((export_name(name), used))

enum { GUEST_STDOUT = 1, GUEST_STDERR = 2 };

typedef struct {
    const void *data;
    size_t bytes;
} guest_iovec;

__attribute__((import_module("wasi_snapshot_preview1"), import_name("fd_write")))
int32_t guest_fd_write(int32_t file, const guest_iovec *vectors, size_t count, size_t *written);

/* Write bytes to stdout or stderr. What cannot be written is dropped. */
static inline void guest_write(int32_t file, const void *data, size_t bytes) {
    const guest_iovec vector = {data, bytes};
    size_t written;
    (void)guest_fd_write(file, &vector, 1, &written);
}

/* Write a C string. */
static inline void guest_print(int32_t file, const char *text) {
    size_t bytes = 0;
    while (text[bytes]) {
        bytes++;
    }
    guest_write(file, text, bytes);
}

/* Write a number in decimal. */
static inline void guest_print_number(int32_t file, int64_t number) {
    char text[20];
    char *at = text + sizeof text;
    uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
    do {
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (number < 0) {
        *--at = '-';
    }
    guest_write(file, at, (size_t)(text + sizeof text - at));
}

/* The first address that neither the program nor its stack uses; the linker sets it. */
extern char __heap_base;

/* Make sure that `bytes` of memory lie behind the program's own and return where they start, aligned to 64; NULL
 * when memory cannot grow that far. Each call gives the same place again: one arena, no free. */
static inline void *guest_arena(uint64_t bytes) {
    const uint64_t start = ((uint64_t)(uintptr_t)&__heap_base + 63) & ~63ull;
    const uint64_t page = 65536;
    const uint64_t pages = (start + bytes + page - 1) / page;
    const uint64_t have = __builtin_wasm_memory_size(0);
    if (pages > page) {
        return NULL;
    }
    if (pages > have && __builtin_wasm_memory_grow(0, (size_t)(pages - have)) == (size_t)-1) {
        return NULL;
    }
    return (void *)(uintptr_t)start;
}

#endif
