/* A double of libcuda.so.1: the driver's checkpoint API, and what leads to it.
 *
 * CUDA_DOUBLE names a folder, which all processes that load the double share:
 *
 *   PID         the state of a process that uses CUDA, as the driver numbers it (0 running,
 *               1 locked, 2 checkpointed, 3 failed, 4 checkpointing, 5 restoring), and
 *               after it "stuck" once a restore has run out of memory: then it stays 2,
 *               a restore answers 304 and an unlock 401 (cuda-checkpoint#44). A process
 *               without a file uses no CUDA.
 *   scenario    read again on every call, one statement a line:
 *     fail FUNCTION CODE    what a call returns in place of doing its work
 *     leave FUNCTION STATE  the state in which a call that fails leaves the process
 *     done FUNCTION         the call does nothing, and says that it did
 *     hang FUNCTION         the call does its work and never returns
 *     end FUNCTION          the call kills the process (cuda-checkpoint#58)
 *     crash FUNCTION        the call kills its caller
 *     settle STATE          what state 4 or 5 turns into, after it was told once
 *     version NUMBER        of CUDA, 12080 if it is not said
 *     init                  calls fail until cuInit was called
 *   calls       every call appends "function pid"
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, OPERATING_SYSTEM = 304,
       ILLEGAL_STATE = 401, NOT_FOUND = 500, NOT_READY = 600 };
enum { RUNNING, LOCKED, CHECKPOINTED, FAILED, CHECKPOINTING, RESTORING };

static int initialised;

static FILE *open_in(const char *name, const char *mode) {
    char path[4096];
    const char *folder = getenv("CUDA_DOUBLE");
    if (!folder)
        return NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return fopen(path, mode);
}

/* The number after "WORD FUNCTION", or after "WORD" alone; -1 where nobody said so. */
static int said(const char *word, const char *function) {
    char line[256], begin[256];
    int found = -1;
    FILE *file = open_in("scenario", "r");
    if (!file)
        return -1;
    snprintf(begin, sizeof begin, "%s%s%s", word, *function ? " " : "", function);
    while (fgets(line, sizeof line, file)) {
        size_t length = strlen(begin);
        if (!strncmp(line, begin, length) && strchr(" \n", line[length]))
            found = atoi(line + length);
    }
    fclose(file);
    return found;
}

static int get(int pid, int *stuck) {
    char name[32], word[16] = "";
    int state = -1;
    snprintf(name, sizeof name, "%d", pid);
    FILE *file = open_in(name, "r");
    if (!file)
        return -1;
    if (fscanf(file, "%d %15s", &state, word) < 1)
        state = -1;
    fclose(file);
    *stuck = !strcmp(word, "stuck");
    return state;
}

static void set(int pid, int state, int stuck) {
    char name[32];
    snprintf(name, sizeof name, "%d", pid);
    FILE *file = open_in(name, "w");
    if (file) {
        fprintf(file, "%d%s\n", state, stuck ? " stuck" : "");
        fclose(file);
    }
}

static void note(const char *function, int pid) {
    FILE *file = open_in("calls", "a");
    if (file) {
        fprintf(file, "%s %d\n", function, pid);
        fclose(file);
    }
}

static int move(const char *function, int pid, int from, int to) {
    int stuck = 0, state, code;
    note(function, pid);
    if (said("init", "") >= 0 && !initialised)
        return NOT_INITIALIZED;
    if (said("crash", function) >= 0)
        abort();
    if ((state = get(pid, &stuck)) < 0)
        return NOT_INITIALIZED;
    if (said("end", function) >= 0) {
        kill(pid, SIGKILL);
        usleep(100000);
        return OPERATING_SYSTEM;
    }
    if (state != from || (stuck && to == RUNNING))
        return ILLEGAL_STATE;
    if (stuck)
        return OPERATING_SYSTEM;
    if ((code = said("fail", function)) >= 0) {
        int left = said("leave", function);
        set(pid, left >= 0 ? left : state, from == CHECKPOINTED && code == OUT_OF_MEMORY);
        return code;
    }
    if (said("done", function) < 0)
        set(pid, to, 0);
    while (said("hang", function) >= 0)
        usleep(20000);
    return OK;
}

int cuInit(unsigned flags) {
    (void)flags;
    note("cuInit", 0);
    initialised = 1;
    return OK;
}

int cuDriverGetVersion(int *version) {
    int number = said("version", "");
    *version = number >= 0 ? number : 12080;
    return OK;
}

int cuGetErrorName(int code, const char **text) {
    switch (code) {
    case OUT_OF_MEMORY: *text = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case NOT_INITIALIZED: *text = "CUDA_ERROR_NOT_INITIALIZED"; break;
    case OPERATING_SYSTEM: *text = "CUDA_ERROR_OPERATING_SYSTEM"; break;
    case ILLEGAL_STATE: *text = "CUDA_ERROR_ILLEGAL_STATE"; break;
    case NOT_READY: *text = "CUDA_ERROR_NOT_READY"; break;
    default: *text = "CUDA_ERROR_UNKNOWN";
    }
    return OK;
}

int cuGetErrorString(int code, const char **text) { return cuGetErrorName(code, text); }

int cuCheckpointProcessGetState(int pid, int *state) {
    int stuck, next;
    note("cuCheckpointProcessGetState", pid);
    if (said("init", "") >= 0 && !initialised)
        return NOT_INITIALIZED;
    while (said("hang", "cuCheckpointProcessGetState") >= 0)
        usleep(20000);
    if ((*state = get(pid, &stuck)) < 0)
        return NOT_INITIALIZED;
    if (*state >= CHECKPOINTING && (next = said("settle", "")) >= 0)
        set(pid, next, 0);
    return OK;
}

int cuCheckpointProcessLock(int pid, unsigned *args) {
    if (!args || !*args) {
        fprintf(stderr, "cuda_double: a lock without a timeout may wait for ever\n");
        abort();
    }
    return move("cuCheckpointProcessLock", pid, RUNNING, LOCKED);
}

int cuCheckpointProcessCheckpoint(int pid, void *args) {
    (void)args;
    return move("cuCheckpointProcessCheckpoint", pid, LOCKED, CHECKPOINTED);
}

int cuCheckpointProcessRestore(int pid, void *args) {
    (void)args;
    return move("cuCheckpointProcessRestore", pid, CHECKPOINTED, LOCKED);
}

int cuCheckpointProcessUnlock(int pid, void *args) {
    (void)args;
    return move("cuCheckpointProcessUnlock", pid, LOCKED, RUNNING);
}

int cuGetProcAddress_v2(const char *name, void **function, int version,
                        unsigned long long flags, int *result) {
    static const struct { const char *name; void *function; } known[] = {
        {"cuInit", cuInit},
        {"cuDriverGetVersion", cuDriverGetVersion},
        {"cuGetErrorName", cuGetErrorName},
        {"cuGetErrorString", cuGetErrorString},
        {"cuGetProcAddress", cuGetProcAddress_v2},
        {"cuCheckpointProcessGetState", cuCheckpointProcessGetState},
        {"cuCheckpointProcessLock", cuCheckpointProcessLock},
        {"cuCheckpointProcessCheckpoint", cuCheckpointProcessCheckpoint},
        {"cuCheckpointProcessRestore", cuCheckpointProcessRestore},
        {"cuCheckpointProcessUnlock", cuCheckpointProcessUnlock},
    };
    (void)version;
    (void)flags;
    *function = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i].name))
            *function = known[i].function;
    if (result)
        *result = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}
