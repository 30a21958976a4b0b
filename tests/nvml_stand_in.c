/* A stand-in for the NVIDIA driver's library: it answers from a file that NVML_STAND_IN names, read at each call.
 *
 * The first line is the driver's state: "ok", "gone" (it was unloaded), "hang" (calls return when the file says
 * something else). Each further line is a GPU: temperature in degrees, load in percent, the bits of what slows its
 * clocks, corrected and uncorrected memory errors. "-" is what the GPU cannot tell, a line "lost" a GPU that fell off
 * the bus. OLD_DRIVER leaves out what drivers had not before 2023.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
enum { TEMPERATURE, LOAD, REASONS, CORRECTED, UNCORRECTED, VALUES };
enum { GPUS_MAX = 16 };

typedef struct {
    int is_lost;
    char values[VALUES][32];
} Gpu;

static int read_file(Gpu *gpus, int *count) {
    for (;;) {
        char line[256] = "";
        FILE *file = fopen(getenv("NVML_STAND_IN"), "r");
        if (file == NULL || fgets(line, sizeof line, file) == NULL) {
            if (file != NULL) fclose(file);
            return DRIVER_NOT_LOADED;
        }
        if (strncmp(line, "hang", 4) == 0) {
            fclose(file);
            usleep(20000);
            continue;
        }
        if (strncmp(line, "ok", 2) != 0) {
            fclose(file);
            return DRIVER_NOT_LOADED;
        }
        for (*count = 0; *count < GPUS_MAX && fgets(line, sizeof line, file) != NULL; ++*count) {
            Gpu *gpu = &gpus[*count];
            gpu->is_lost = strncmp(line, "lost", 4) == 0;
            if (!gpu->is_lost &&
                sscanf(line, "%31s %31s %31s %31s %31s", gpu->values[0], gpu->values[1], gpu->values[2],
                       gpu->values[3], gpu->values[4]) != VALUES)
                abort();
        }
        fclose(file);
        return OK;
    }
}

/* A device's handle is its index and one, so that none is null. */
static int value_of(void *device, int which, unsigned long long *value) {
    Gpu gpus[GPUS_MAX];
    int count = 0, status = read_file(gpus, &count);
    long index = (long)device - 1;
    if (status != OK) return status;
    if (index >= count || gpus[index].is_lost) return GPU_IS_LOST;
    if (strcmp(gpus[index].values[which], "-") == 0) return NOT_SUPPORTED;
    *value = strtoull(gpus[index].values[which], NULL, 0);
    return OK;
}

int nvmlInitWithFlags(unsigned flags) {
    Gpu gpus[GPUS_MAX];
    int count = 0;
    (void)flags;
    return read_file(gpus, &count);
}

int nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(int status) {
    switch (status) {
        case DRIVER_NOT_LOADED: return "Driver Not Loaded";
        case GPU_IS_LOST: return "GPU is lost";
        default: return "Unknown Error";
    }
}

int nvmlDeviceGetCount_v2(unsigned *found) {
    Gpu gpus[GPUS_MAX];
    int count = 0, status = read_file(gpus, &count);
    *found = (unsigned)count;
    return status;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    Gpu gpus[GPUS_MAX];
    int count = 0, status = read_file(gpus, &count);
    if (status != OK) return status;
    if (index >= (unsigned)count) return INVALID_ARGUMENT;
    *device = (void *)((long)index + 1);
    return gpus[index].is_lost ? GPU_IS_LOST : OK;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned rates[2]) {
    unsigned long long value = 0;
    int status = value_of(device, LOAD, &value);
    rates[0] = (unsigned)value;
    rates[1] = 99; /* of its memory, which nobody asks for */
    return status;
}

int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *errors) {
    if (counter != 0) return INVALID_ARGUMENT; /* since the driver was loaded */
    return value_of(device, type == 0 ? CORRECTED : UNCORRECTED, errors);
}

#ifdef OLD_DRIVER
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    unsigned long long value = 0;
    int status = sensor == 0 ? value_of(device, TEMPERATURE, &value) : INVALID_ARGUMENT;
    *celsius = (unsigned)value;
    return status;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
    return value_of(device, REASONS, reasons);
}
#else
typedef struct {
    unsigned version;
    int sensor;
    int celsius;
} Temperature;

int nvmlDeviceGetTemperatureV(void *device, Temperature *temperature) {
    unsigned long long value = 0;
    int status = temperature->sensor == 0 ? value_of(device, TEMPERATURE, &value) : INVALID_ARGUMENT;
    temperature->celsius = (int)value;
    return status;
}

int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) {
    return value_of(device, REASONS, reasons);
}
#endif
