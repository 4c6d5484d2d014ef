/* A double of libnvidia-ml.so.1: says what a scenario file says.
 *
 * The file named by NVML_DOUBLE_SCENARIO is read again on every call, so a test can
 * change the machine while a program runs. One statement a line:
 *
 *   gpu UUID MINOR TOTAL RESERVED USED UTILISATION MIG   (MIG 1: its slices count)
 *   mig PARENT_UUID SLOT UUID TOTAL RESERVED USED        (after its parent's line)
 *   process UUID PID BYTES KIND      KIND: compute, graphics, mps; BYTES -1: unknown
 *   working UUID PID TIMESTAMP SM    one row of process utilisation; SM in percent;
 *                                    TIMESTAMP 0: padding, in every answer
 *   busy UUID TIMESTAMP PERCENT      one row of the device's utilisation buffer
 *   fail FUNCTION UUID CODE          what a call returns; * stands for any
 *   crowded FUNCTION TIMES           the filling call is too small this many times
 *   hang FUNCTION                    the call never returns
 *   crash FUNCTION                   the call ends the process, as a broken library does
 *   print FUNCTION                   the call prints a line to stdout
 *   version NUMBER                   of the kernel module: a process that has loaded the
 *                                    library at another number is mismatched for ever
 *   set UUID WHAT NUMBER             compute-mode, persistence, mig-pending, ecc,
 *                                    pages-pending, remap-pending, remap-failed;
 *                                    what is not set is 0
 *
 * Limits by cgroup are kept in a file beside the scenario's, with ".limits" at the end of
 * its name, as the driver keeps them beyond the life of who set them.
 *
 * NVML_DOUBLE_CALLS names a file to which every call appends "function uuid".
 * -DOLD_DRIVER builds a driver from before the _v3 process lists, memory info v2 and
 * limits by cgroup. -DSTEADY builds one whose scenario is read once, so that its calls
 * cost next to nothing, and in which who works does so at the time of each call, whatever
 * its TIMESTAMP says.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef MOST
#define MOST 512
#endif
#define NOT_AVAILABLE (~0ULL)
enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
       TOO_SMALL = 7, MISMATCH = 18 };

typedef unsigned long long u64;
struct device {
    char uuid[64], parent[64];
    int minor, slot, mig;
    u64 total, reserved, used;
    unsigned utilisation;
};
struct process { char uuid[64], kind[16]; unsigned pid; u64 bytes; };
struct row { char uuid[64]; unsigned pid, percent; u64 at; };
struct rule { char function[64], uuid[64]; int number; };

static struct device devices[MOST];
static struct process processes[MOST];
static struct row working[MOST], busy[MOST];
static struct rule fails[MOST], crowds[MOST], hangs[MOST], sets[MOST];
static struct rule crashes[MOST], prints[MOST];
static int n_devices, n_processes, n_working, n_busy, n_fails, n_crowds, n_hangs;
static int n_sets, n_crashes, n_prints;
static int version, loaded_version = -1;
static int initialised, crowded_calls;

static void read_line(const char *line) {
    struct device d = {.minor = -1};
    struct process p = {.pid = 0};
    struct row r = {.pid = 0};
    struct rule x = {.uuid = "*"};
    long long bytes;
    if (sscanf(line, "gpu %63s %d %llu %llu %llu %u %d", d.uuid, &d.minor, &d.total,
               &d.reserved, &d.used, &d.utilisation, &d.mig) == 7)
        devices[n_devices++] = d;
    else if (sscanf(line, "mig %63s %d %63s %llu %llu %llu", d.parent, &d.slot, d.uuid,
                    &d.total, &d.reserved, &d.used) == 6)
        devices[n_devices++] = d;
    else if (sscanf(line, "process %63s %u %lld %15s", p.uuid, &p.pid, &bytes,
                    p.kind) == 4) {
        p.bytes = bytes < 0 ? NOT_AVAILABLE : (u64)bytes;
        processes[n_processes++] = p;
    } else if (sscanf(line, "working %63s %u %llu %u", r.uuid, &r.pid, &r.at,
                      &r.percent) == 4)
        working[n_working++] = r;
    else if (sscanf(line, "busy %63s %llu %u", r.uuid, &r.at, &r.percent) == 3)
        busy[n_busy++] = r;
    else if (sscanf(line, "fail %63s %63s %d", x.function, x.uuid, &x.number) == 3)
        fails[n_fails++] = x;
    else if (sscanf(line, "set %63s %63s %d", x.uuid, x.function, &x.number) == 3)
        sets[n_sets++] = x;
    else if (sscanf(line, "crowded %63s %d", x.function, &x.number) == 2)
        crowds[n_crowds++] = x;
    else if (sscanf(line, "hang %63s", x.function) == 1)
        hangs[n_hangs++] = x;
    else if (sscanf(line, "crash %63s", x.function) == 1)
        crashes[n_crashes++] = x;
    else if (sscanf(line, "print %63s", x.function) == 1)
        prints[n_prints++] = x;
    else if (sscanf(line, "version %d", &version) == 1)
        return;
    else if (line[0] != '\n' && line[0] != '#') {
        fprintf(stderr, "nvml_double: cannot read: %s", line);
        abort();
    }
}

static void load(void) {
    const char *path = getenv("NVML_DOUBLE_SCENARIO");
    char line[512];
#ifdef STEADY
    if (n_devices)
        return;
#endif
    FILE *file = path ? fopen(path, "r") : NULL;
    n_devices = n_processes = n_working = n_busy = n_fails = n_crowds = n_hangs = 0;
    n_sets = n_crashes = n_prints = version = 0;
    if (!file)
        return;
    while (fgets(line, sizeof line, file))
        read_line(line);
    fclose(file);
    if (loaded_version < 0)
        loaded_version = version;
}

static int covers(const char *pattern, const char *text) {
    return !strcmp(pattern, "*") || !strcmp(pattern, text);
}

/* Every call passes here. Returns a verdict, or -1: answer as the scenario says. */
static int enter(const char *function, const struct device *d) {
    const char *uuid = d ? d->uuid : "-", *calls = getenv("NVML_DOUBLE_CALLS");
    FILE *file = calls ? fopen(calls, "a") : NULL;
    if (file) {
        fprintf(file, "%s %s\n", function, uuid);
        fclose(file);
    }
    for (int i = 0; i < n_hangs; i++)
        while (covers(hangs[i].function, function))
            pause();
    for (int i = 0; i < n_crashes; i++)
        if (covers(crashes[i].function, function))
            abort();
    for (int i = 0; i < n_prints; i++)
        if (covers(prints[i].function, function) && puts("nvml_double: hello"))
            fflush(stdout);
    if (loaded_version != version)
        return MISMATCH;
    for (int i = 0; i < n_fails; i++)
        if (covers(fails[i].function, function) && covers(fails[i].uuid, uuid))
            return fails[i].number;
    return initialised || !strcmp(function, "nvmlInitWithFlags") ? -1 : UNINITIALIZED;
}
#define ENTER(d)                                                                       \
    do {                                                                               \
        int verdict = enter(__func__, d);                                              \
        if (verdict >= 0)                                                              \
            return verdict;                                                            \
    } while (0)
#define ENTER_DEVICE(d)                                                                \
    do {                                                                               \
        ENTER(d);                                                                      \
        if (!d)                                                                        \
            return INVALID_ARGUMENT;                                                   \
    } while (0)

/* A handle is the position of its line among gpu and mig lines, counted from 1. */
static struct device *of(void *handle) {
    load();
    long i = (long)handle - 1;
    return i >= 0 && i < n_devices ? &devices[i] : NULL;
}
static void *handle_of(const struct device *d) { return (void *)(d - devices + 1); }

static int crowded(const char *function) {
    for (int i = 0; i < n_crowds; i++)
        if (!strcmp(crowds[i].function, function) && crowded_calls < crowds[i].number)
            return ++crowded_calls;
    return 0;
}

/* What a test has set on a device; the last word counts. */
static int set_on(const struct device *d, const char *what) {
    int number = 0;
    for (int i = 0; i < n_sets; i++)
        if (covers(sets[i].uuid, d->uuid) && !strcmp(sets[i].function, what))
            number = sets[i].number;
    return number;
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case OK: return "Success";
    case NOT_FOUND: return "Not Found";
    default: return "Some Error";
    }
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    load();
    ENTER(NULL);
    initialised++;
    return OK;
}
int nvmlShutdown(void) {
    load();
    ENTER(NULL);
    initialised--;
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    load();
    ENTER(NULL);
    *count = 0;
    for (int i = 0; i < n_devices; i++)
        *count += !devices[i].parent[0];
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    load();
    for (int i = 0; i < n_devices; i++)
        if (!devices[i].parent[0] && index-- == 0) {
            ENTER(&devices[i]);
            *handle = handle_of(&devices[i]);
            return OK;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    snprintf(text, size, "%s", d->uuid);
    return OK;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    snprintf(text, size, d->parent[0] ? "NVIDIA Double MIG 1g" : "NVIDIA Double");
    return OK;
}
int nvmlDeviceGetMinorNumber(void *handle, unsigned *minor) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *minor = (unsigned)d->minor;
    return d->parent[0] ? NOT_SUPPORTED : OK;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *current = (unsigned)d->mig;
    *pending = (unsigned)(d->mig || set_on(d, "mig-pending"));
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *count = 7;
    return OK;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned slot, void **slice) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    for (int i = 0; i < n_devices; i++)
        if (!strcmp(devices[i].parent, d->uuid) && devices[i].slot == (int)slot) {
            *slice = handle_of(&devices[i]);
            return OK;
        }
    return NOT_FOUND;
}
/* A slice in slot N is compute instance 0 of GPU instance N + 7. */
int nvmlDeviceGetGpuInstanceId(void *handle, unsigned *id) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *id = (unsigned)d->slot + 7;
    return d->parent[0] ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetComputeInstanceId(void *handle, unsigned *id) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *id = 0;
    return d->parent[0] ? OK : NOT_SUPPORTED;
}

struct memory { u64 total, free, used; };
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *m) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *m = (struct memory){d->total, d->total - d->reserved - d->used,
                         d->reserved + d->used};
    return OK;
}
#ifndef OLD_DRIVER
struct memory_v2 { unsigned version; u64 total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory_v2 *m) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *m = (struct memory_v2){m->version, d->total, d->reserved,
                            d->total - d->reserved - d->used, d->used};
    return OK;
}
#endif

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    load();
    ENTER(NULL);
    snprintf(text, size, "580.95.05");
    return OK;
}
int nvmlSystemGetNVMLVersion(char *text, unsigned size) {
    load();
    ENTER(NULL);
    snprintf(text, size, "13.580.95.05");
    return OK;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    load();
    ENTER(NULL);
    *version = 13000;
    return OK;
}
#define SETTING(name, what)                                                            \
    int name(void *handle, unsigned *number) {                                         \
        struct device *d = of(handle);                                                 \
        ENTER_DEVICE(d);                                                               \
        *number = (unsigned)set_on(d, what);                                           \
        return OK;                                                                     \
    }
SETTING(nvmlDeviceGetComputeMode, "compute-mode")
SETTING(nvmlDeviceGetPersistenceMode, "persistence")
SETTING(nvmlDeviceGetRetiredPagesPendingStatus, "pages-pending")
int nvmlDeviceGetTotalEccErrors(void *handle, int type, int counter, u64 *errors) {
    struct device *d = of(handle);
    (void)type, (void)counter;
    ENTER_DEVICE(d);
    *errors = (u64)set_on(d, "ecc");
    return OK;
}
int nvmlDeviceGetRemappedRows(void *handle, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *corrected = *uncorrected = 0;
    *pending = (unsigned)set_on(d, "remap-pending");
    *failed = (unsigned)set_on(d, "remap-failed");
    return OK;
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
    struct device *d = of(handle);
    (void)sensor;
    ENTER_DEVICE(d);
    *celsius = 41;
    return OK;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    *milliwatts = 125500;
    return OK;
}

static u64 time_of(const struct row *row) {
#ifdef STEADY
    struct timespec now;
    (void)row;
    clock_gettime(CLOCK_REALTIME, &now);
    return (u64)now.tv_sec * 1000000 + (u64)now.tv_nsec / 1000;
#else
    return row->at;
#endif
}

struct rates { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(void *handle, struct rates *rates) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    rates->gpu = d->utilisation;
    rates->memory = 0;
    return d->parent[0] ? NOT_SUPPORTED : OK;
}

struct sample { u64 at; union { double as_double; unsigned as_unsigned; } value; };
int nvmlDeviceGetSamples(void *handle, int kind, u64 since, int *type, unsigned *count,
                         struct sample *samples) {
    struct device *d = of(handle);
    unsigned found = 0;
    (void)kind;
    ENTER_DEVICE(d);
    for (int i = 0; i < n_busy; i++)
        if (!strcmp(busy[i].uuid, d->uuid) && time_of(&busy[i]) > since) {
            if (samples) {
                samples[found].at = time_of(&busy[i]);
                samples[found].value.as_unsigned = busy[i].percent;
            }
            found++;
        }
    *type = 1;
    *count = found;
    return found ? OK : NOT_FOUND;
}

struct working { unsigned pid; u64 at; unsigned sm, mem, enc, dec; };
int nvmlDeviceGetProcessUtilization(void *handle, struct working *rows, unsigned *count,
                                    u64 since) {
    struct device *d = of(handle);
    unsigned found = 0;
    ENTER_DEVICE(d);
    if (rows && crowded(__func__))
        return TOO_SMALL;
    for (int i = 0; i < n_working; i++)
        if (!strcmp(working[i].uuid, d->uuid) &&
            (time_of(&working[i]) > since || !working[i].at)) {
            if (rows)
                rows[found] = (struct working){working[i].pid, time_of(&working[i]),
                                               working[i].percent, 0, 0, 0};
            found++;
        }
    *count = found;
    return !found ? NOT_FOUND : rows ? OK : TOO_SMALL;
}

struct listed { unsigned pid; u64 bytes; unsigned gpu_instance, compute_instance; };
static int list(const char *function, void *handle, const char *kind, unsigned *count,
                struct listed *rows) {
    struct device *d = of(handle);
    unsigned found = 0, room = *count;
    int verdict = enter(function, d);
    if (verdict >= 0 || !d)
        return verdict >= 0 ? verdict : INVALID_ARGUMENT;
    for (int i = 0; i < n_processes; i++)
        if (!strcmp(processes[i].uuid, d->uuid) && !strcmp(processes[i].kind, kind)) {
            if (rows && found < room)
                rows[found] = (struct listed){processes[i].pid, processes[i].bytes,
                                              ~0U, ~0U};
            found++;
        }
    *count = found;
    return found > room || (rows && crowded(function)) ? TOO_SMALL : OK;
}
#define LIST(name, kind)                                                               \
    int name(void *handle, unsigned *count, struct listed *rows) {                     \
        return list(__func__, handle, kind, count, rows);                              \
    }
LIST(nvmlDeviceGetComputeRunningProcesses_v2, "compute")
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics")
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps")
#ifndef OLD_DRIVER
LIST(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")
#endif

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    load();
    for (int i = 0; i < n_devices; i++)
        if (!strcmp(devices[i].uuid, uuid)) {
            ENTER(&devices[i]);
            *handle = handle_of(&devices[i]);
            return OK;
        }
    return NOT_FOUND;
}

#ifndef OLD_DRIVER
struct set_limits { const char *folder; u64 soft, hard; };
struct get_limits { const char *folder; u64 soft, hard, used; };
static FILE *limits_file(const char *mode) {
    const char *scenario = getenv("NVML_DOUBLE_SCENARIO");
    char path[4096];
    snprintf(path, sizeof path, "%s.limits", scenario ? scenario : "");
    return fopen(path, mode);
}
int nvmlDeviceSetMemoryLimits_v1(void *handle, struct set_limits *limits) {
    struct device *d = of(handle);
    ENTER_DEVICE(d);
    if (d->parent[0] || d->mig)
        return NOT_SUPPORTED;
    if (access(limits->folder, F_OK))
        return NOT_FOUND;
    FILE *file = limits_file("a");
    fprintf(file, "%s %llu %llu %s\n", d->uuid, limits->soft, limits->hard,
            limits->folder);
    fclose(file);
    return OK;
}
int nvmlDeviceGetMemoryLimits_v1(void *handle, struct get_limits *limits) {
    struct device *d = of(handle);
    char uuid[64], folder[4096];
    u64 soft, hard;
    int verdict = NOT_FOUND;
    ENTER_DEVICE(d);
    if (d->parent[0] || d->mig)
        return NOT_SUPPORTED;
    FILE *file = access(limits->folder, F_OK) ? NULL : limits_file("r");
    while (file && fscanf(file, "%63s %llu %llu %4095s", uuid, &soft, &hard, folder) == 4)
        if (!strcmp(uuid, d->uuid) && !strcmp(folder, limits->folder)) {
            limits->soft = soft;
            limits->hard = hard;
            limits->used = 0;
            verdict = OK;
        }
    if (file)
        fclose(file);
    return verdict;
}
#endif
