/* A stand-in for NVIDIA's driver: it answers from a file, STAND_IN, and writes down what it was asked.
 *
 * The file's lines: "fail NAME CODE" has a function fail, "version N" is the CUDA that it has, "gpu MAJOR.MINOR UUID
 * NAME" is a GPU (the UUID as 32 hexadecimal digits), "lacks NUMBER" has an attribute of all GPUs be 0, "hang" has
 * cuInit not return. Calls are appended to the file STAND_IN_LOG: function, arguments.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned int u32;
typedef unsigned long long u64;

enum { NOT_READY = 600, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_PTX = 218, NOT_FOUND = 500 };
enum { GPUS_MAX = 8, NAME_MAX_BYTES = 64 };

typedef struct {
    int major, minor;
    char uuid[33], name[NAME_MAX_BYTES];
} Gpu;

static struct {
    int version, count, lacks, hangs, code;
    Gpu gpus[GPUS_MAX];
} told;

static void read_told(const char *function) {
    char line[256], name[64];
    FILE *file = fopen(STAND_IN, "r");
    int code;
    memset(&told, 0, sizeof told);
    told.version = 13000;
    if (file == NULL) abort();
    while (fgets(line, sizeof line, file) != NULL) {
        Gpu *gpu = &told.gpus[told.count];
        if (sscanf(line, "fail %63s %d", name, &code) == 2) {
            if (strcmp(name, function) == 0) told.code = code;
        } else if (sscanf(line, "gpu %d.%d %32s %63[^\n]", &gpu->major, &gpu->minor, gpu->uuid, gpu->name) == 4) {
            told.count += told.count < GPUS_MAX - 1;
        } else if (strncmp(line, "hang", 4) == 0) {
            told.hangs = 1;
        } else {
            sscanf(line, "version %d", &told.version);
            sscanf(line, "lacks %d", &told.lacks);
        }
    }
    fclose(file);
}

/* What a function returns that was called with these arguments. */
static int called(const char *function, const char *format, ...) {
    FILE *file = fopen(STAND_IN_LOG, "a");
    va_list arguments;
    read_told(function);
    if (file == NULL) abort();
    va_start(arguments, format);
    fprintf(file, "%s ", function);
    vfprintf(file, format, arguments);
    fprintf(file, "\n");
    va_end(arguments);
    fclose(file);
    return told.code;
}

#define GIVE(pointer, value)              \
    do {                                  \
        if (code == 0) *(pointer) = value; \
        return code;                      \
    } while (0)

static int init(u32 flags) {
    int code = called("cuInit", "%u", flags);
    while (told.hangs) sleep(1);
    return code != 0 ? code : told.count == 0 ? NO_DEVICE : 0;
}
static int driver_version(int *version) {
    int code = called("cuDriverGetVersion", "");
    GIVE(version, told.version);
}
static int device_count(int *count) {
    int code = called("cuDeviceGetCount", "");
    GIVE(count, told.count);
}
static int device_get(int *device, int index) {
    int code = called("cuDeviceGet", "%d", index);
    if (index < 0 || index >= told.count) return INVALID_DEVICE;
    GIVE(device, index);
}
static int device_name(char *name, int bytes, int device) {
    int code = called("cuDeviceGetName", "%d %d", bytes, device);
    if (code == 0) snprintf(name, bytes, "%s", told.gpus[device].name);
    return code;
}
static int device_uuid(unsigned char *uuid, int device) {
    int code = called("cuDeviceGetUuid", "%d", device);
    for (int at = 0; code == 0 && at < 16; ++at) {
        u32 byte;
        if (sscanf(told.gpus[device].uuid + 2 * at, "%2x", &byte) != 1) abort();
        uuid[at] = (unsigned char)byte;
    }
    return code;
}
static int device_memory(size_t *bytes, int device) {
    int code = called("cuDeviceTotalMem", "%d", device);
    GIVE(bytes, (size_t)80 << 30);
}
static int device_attribute(int *value, int attribute, int device) {
    int code = called("cuDeviceGetAttribute", "%d %d", attribute, device);
    int known = attribute == 75 ? told.gpus[device].major : attribute == 76 ? told.gpus[device].minor
                : attribute == 16 ? 132 : attribute == 97 ? 232448 : 1;
    /* The way in which a GPU may be used (20) is 0 when anybody may, 2 when nobody may. */
    if (attribute == 20) GIVE(value, told.lacks == 20 ? 2 : 0);
    GIVE(value, attribute == told.lacks ? 0 : known);
}
static int context_create_2(u64 *context, u32 flags, int device) {
    int code = called("cuCtxCreate_v2", "%u %d", flags, device);
    GIVE(context, 0xC0);
}
static int context_create_4(u64 *context, void *parameters, u32 flags, int device) {
    int code = called("cuCtxCreate_v4", "%d %u %d", parameters != NULL, flags, device);
    GIVE(context, 0xC0);
}
static int context_set(u64 context) { return called("cuCtxSetCurrent", "%llx", context); }
static int context_destroy(u64 context) { return called("cuCtxDestroy", "%llx", context); }
static int context_device(int *device) {
    int code = called("cuCtxGetDevice", "");
    GIVE(device, 1);
}

/* CUmemAllocationProp: type, handle types, location's type and number, … */
static int granularity(size_t *bytes, const int *property, int option) {
    int code = called("cuMemGetAllocationGranularity", "%d %d %d %d", property[0], property[2], property[3], option);
    GIVE(bytes, 2 << 20);
}
static int memory_info(size_t *free_bytes, size_t *total) {
    int code = called("cuMemGetInfo", "");
    if (code == 0) *total = (size_t)80 << 30;
    GIVE(free_bytes, (size_t)79 << 30);
}
static int reserve(u64 *address, size_t bytes, size_t alignment, u64 hint, u64 flags) {
    int code = called("cuMemAddressReserve", "%zu %zu %llu %llu", bytes, alignment, hint, flags);
    GIVE(address, 0x7f0000000000);
}
static int release(u64 address, size_t bytes) { return called("cuMemAddressFree", "%llx %zu", address, bytes); }
static int create(u64 *memory, size_t bytes, const int *property, u64 flags) {
    int code = called("cuMemCreate", "%zu %d %d %d %llu", bytes, property[0], property[2], property[3], flags);
    GIVE(memory, 0x3E3);
}
static int destroy(u64 memory) { return called("cuMemRelease", "%llx", memory); }
static int map(u64 address, size_t bytes, size_t offset, u64 memory, u64 flags) {
    return called("cuMemMap", "%llx %zu %zu %llx %llu", address, bytes, offset, memory, flags);
}
static int unmap(u64 address, size_t bytes) { return called("cuMemUnmap", "%llx %zu", address, bytes); }
/* CUmemAccessDesc: location's type and number, flags. */
static int set_access(u64 address, size_t bytes, const int *access, size_t count) {
    return called("cuMemSetAccess", "%llx %zu %d %d %d %zu", address, bytes, access[0], access[1], access[2], count);
}
static int host_register(u64 address, size_t bytes, u32 flags) {
    return called("cuMemHostRegister", "%llx %zu %u", address, bytes, flags);
}
static int host_pointer(u64 *seen, u64 address, u32 flags) {
    int code = called("cuMemHostGetDevicePointer", "%llx %u", address, flags);
    GIVE(seen, address + 0x100000000000);
}
static int host_unregister(u64 address) { return called("cuMemHostUnregister", "%llx", address); }

static int stream_create(u64 *stream, u32 flags) {
    int code = called("cuStreamCreate", "%u", flags);
    GIVE(stream, 0x57);
}
static int stream_destroy(u64 stream) { return called("cuStreamDestroy", "%llx", stream); }
static int stream_query(u64 stream) { return called("cuStreamQuery", "%llx", stream); }
static int stream_wait(u64 stream) { return called("cuStreamSynchronize", "%llx", stream); }
static int copy_in(u64 address, u64 host, size_t bytes, u64 stream) {
    return called("cuMemcpyHtoDAsync", "%llx %llx %zu %llx", address, host, bytes, stream);
}
static int copy_out(u64 host, u64 address, size_t bytes, u64 stream) {
    return called("cuMemcpyDtoHAsync", "%llx %llx %zu %llx", host, address, bytes, stream);
}
static int copy_on(u64 address, u64 source, size_t bytes, u64 stream) {
    return called("cuMemcpyDtoDAsync", "%llx %llx %zu %llx", address, source, bytes, stream);
}
static int fill(u64 address, unsigned char value, size_t bytes, u64 stream) {
    return called("cuMemsetD8Async", "%llx %u %zu %llx", address, value, bytes, stream);
}
static int write_value(u64 stream, u64 address, u32 value, u32 flags) {
    return called("cuStreamWriteValue32", "%llx %llx %u %u", stream, address, value, flags);
}
static int launch(u64 function, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared, u64 stream, void **parameters,
                  void **extra) {
    char text[256] = "none";
    if (extra != NULL) {
        size_t bytes = 0;
        const unsigned char *block = NULL;
        for (; (size_t)extra[0] != 0; extra += 2) {
            if ((size_t)extra[0] == 1) block = extra[1];
            if ((size_t)extra[0] == 2) bytes = *(size_t *)extra[1];
        }
        for (size_t at = 0; at < bytes && at < 100; ++at) sprintf(text + 2 * at, "%02x", block[at]);
    }
    return called("cuLaunchKernel", "%llx %u,%u,%u %u,%u,%u %u %llx %d %s", function, gx, gy, gz, bx, by, bz, shared, stream,
                  parameters != NULL, text);
}

static int module_load(u64 *module, const char *text, u32 count, const int *names, void **values) {
    int code = called("cuModuleLoadDataEx", "%zu %u", strlen(text), count);
    if (code == 0 && strstr(text, "refused") != NULL) {
        char *log = NULL;
        size_t bytes = 0;
        for (u32 at = 0; at < count; ++at) {
            if (names[at] == 5) log = values[at];
            if (names[at] == 6) bytes = (size_t)values[at];
        }
        if (log != NULL) snprintf(log, bytes, "ptxas : line 7 is refused\n");
        return INVALID_PTX;
    }
    GIVE(module, 0x40D);
}
static int module_unload(u64 module) { return called("cuModuleUnload", "%llx", module); }
static int module_function(u64 *function, u64 module, const char *name) {
    int code = called("cuModuleGetFunction", "%llx %s", module, name);
    GIVE(function, 0xF0);
}
static int function_set(u64 function, int attribute, int value) {
    return called("cuFuncSetAttribute", "%llx %d %d", function, attribute, value);
}
static int function_get(int *value, int attribute, u64 function) {
    int code = called("cuFuncGetAttribute", "%d %llx", attribute, function);
    GIVE(value, 1024);
}
/* Two parameters: 8 bytes, and 4 after a gap. */
static int function_parameter(u64 function, size_t number, size_t *offset, size_t *size) {
    int code = called("cuFuncGetParamInfo", "%llx %zu", function, number);
    if (code == 0 && number > 1) return 1;
    *offset = number * 16;
    *size = number == 0 ? 8 : 4;
    return code;
}

static int event_create(u64 *event, u32 flags) {
    int code = called("cuEventCreate", "%u", flags);
    GIVE(event, 0xE0);
}
static int event_destroy(u64 event) { return called("cuEventDestroy", "%llx", event); }
static int event_record(u64 event, u64 stream) { return called("cuEventRecord", "%llx %llx", event, stream); }
static int event_elapsed(float *ms, u64 start, u64 end) {
    int code = called("cuEventElapsedTime", "%llx %llx", start, end);
    GIVE(ms, 1.5f);
}

int cuGetProcAddress_v2(const char *name, void **function, int version, u64 flags, int *found);

static const struct {
    const char *name;
    void *function;
} functions[] = {
    {"cuInit", init},
    {"cuGetProcAddress", cuGetProcAddress_v2},
    {"cuGetProcAddress_v2", cuGetProcAddress_v2},
    {"cuDriverGetVersion", driver_version},
    {"cuDeviceGetCount", device_count},
    {"cuDeviceGet", device_get},
    {"cuDeviceGetName", device_name},
    {"cuDeviceGetUuid", device_uuid},
    {"cuDeviceTotalMem", device_memory},
    {"cuDeviceGetAttribute", device_attribute},
    {"cuCtxSetCurrent", context_set},
    {"cuCtxDestroy", context_destroy},
    {"cuCtxGetDevice", context_device},
    {"cuMemGetAllocationGranularity", granularity},
    {"cuMemGetInfo", memory_info},
    {"cuMemAddressReserve", reserve},
    {"cuMemAddressFree", release},
    {"cuMemCreate", create},
    {"cuMemRelease", destroy},
    {"cuMemMap", map},
    {"cuMemUnmap", unmap},
    {"cuMemSetAccess", set_access},
    {"cuMemHostRegister", host_register},
    {"cuMemHostGetDevicePointer", host_pointer},
    {"cuMemHostUnregister", host_unregister},
    {"cuStreamCreate", stream_create},
    {"cuStreamDestroy", stream_destroy},
    {"cuStreamQuery", stream_query},
    {"cuStreamSynchronize", stream_wait},
    {"cuMemcpyHtoDAsync", copy_in},
    {"cuMemcpyDtoHAsync", copy_out},
    {"cuMemcpyDtoDAsync", copy_on},
    {"cuMemsetD8Async", fill},
    {"cuStreamWriteValue32", write_value},
    {"cuLaunchKernel", launch},
    {"cuModuleLoadDataEx", module_load},
    {"cuModuleUnload", module_unload},
    {"cuModuleGetFunction", module_function},
    {"cuFuncSetAttribute", function_set},
    {"cuFuncGetAttribute", function_get},
    {"cuFuncGetParamInfo", function_parameter},
    {"cuEventCreate", event_create},
    {"cuEventDestroy", event_destroy},
    {"cuEventRecord", event_record},
    {"cuEventElapsedTime", event_elapsed},
};

int cuGetProcAddress_v2(const char *name, void **function, int version, u64 flags, int *found) {
    *function = NULL;
    (void)flags;
    for (size_t at = 0; at < sizeof functions / sizeof *functions; ++at)
        if (strcmp(name, functions[at].name) == 0) *function = functions[at].function;
    if (strcmp(name, "cuCtxCreate") == 0) *function = version >= 12050 ? (void *)context_create_4 : context_create_2;
    if (found != NULL) *found = *function == NULL;
    return *function == NULL ? NOT_FOUND : 0;
}
