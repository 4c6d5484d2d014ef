/* The double with what other programs read of a GPU beside what ours reads: enough for
 * gpustat, nvitop and jupyterlab-nvdashboard, which the benchmarks compare with. What
 * stands in no scenario is some plausible number; what Linux does not have is not
 * supported, nor is NVLink. */
#include "nvml_double.c"

struct pci {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
};
int nvmlDeviceGetPciInfo_v3(void *handle, struct pci *pci) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    memset(pci, 0, sizeof *pci);
    pci->bus = (unsigned)(d - devices) + 1;
    pci->device_id = 0x233010deU;
    snprintf(pci->legacy, sizeof pci->legacy, "0000:%02X:00.0", pci->bus);
    snprintf(pci->id, sizeof pci->id, "00000000:%02X:00.0", pci->bus);
    return OK;
}
int nvmlDeviceGetIndex(void *handle, unsigned *index) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *index = 0;
    for (const struct device *other = devices; other < d; other++)
        *index += !other->parent[0];
    return d->parent[0] ? NOT_FOUND : OK;
}
int nvmlDeviceGetSerial(void *handle, char *text, unsigned size) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    snprintf(text, size, "16500%08d", d->minor);
    return OK;
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *major = 9;
    *minor = 0;
    return OK;
}
int nvmlDeviceIsMigDeviceHandle(void *handle, unsigned *is_slice) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *is_slice = d->parent[0] != 0;
    return OK;
}
int nvmlDeviceGetBAR1MemoryInfo(void *handle, u64 *memory) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    memory[0] = 1ULL << 37;
    memory[1] = memory[0] - (1ULL << 20);
    memory[2] = 1ULL << 20;
    return OK;
}
#define NUMBER(name, value)                                                            \
    int name(void *handle, unsigned *number) {                                         \
        struct device *d = of(handle);                                                 \
        ENTER_DEVICE(d);                                                               \
        *number = value;                                                               \
        return OK;                                                                     \
    }
NUMBER(nvmlDeviceGetFanSpeed, 30)
NUMBER(nvmlDeviceGetPowerManagementLimit, 700000)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, 700000)
NUMBER(nvmlDeviceGetDisplayActive, 0)
NUMBER(nvmlDeviceGetDisplayMode, 0)
NUMBER(nvmlDeviceGetPerformanceState, 0)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, 5)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, 16)
int nvmlDeviceGetNvLinkVersion(void *handle, unsigned link, unsigned *number) {
    struct device *d = of(handle);
    (void)link;
    (void)number;
    ENTER_DEVICE(d);
    return NOT_SUPPORTED;
}
#define NUMBER_OF_KIND(name, value)                                                    \
    int name(void *handle, int kind, unsigned *number) {                               \
        struct device *d = of(handle);                                                 \
        (void)kind;                                                                    \
        ENTER_DEVICE(d);                                                               \
        *number = value;                                                               \
        return OK;                                                                     \
    }
NUMBER_OF_KIND(nvmlDeviceGetClockInfo, 1980)
NUMBER_OF_KIND(nvmlDeviceGetMaxClockInfo, 1980)
NUMBER_OF_KIND(nvmlDeviceGetPcieThroughput, 1024)
#define TWO_NUMBERS(name, a, b, verdict)                                               \
    int name(void *handle, unsigned *first, unsigned *second) {                        \
        struct device *d = of(handle);                                                 \
        ENTER_DEVICE(d);                                                               \
        *first = a;                                                                    \
        *second = b;                                                                   \
        return verdict;                                                                \
    }
TWO_NUMBERS(nvmlDeviceGetEncoderUtilization, 0, 167000, OK)
TWO_NUMBERS(nvmlDeviceGetDecoderUtilization, 0, 167000, OK)
TWO_NUMBERS(nvmlDeviceGetDriverModel, 0, 0, NOT_SUPPORTED)
TWO_NUMBERS(nvmlDeviceGetDriverModel_v2, 0, 0, NOT_SUPPORTED)
