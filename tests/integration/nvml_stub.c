/* A driver's libnvidia-ml.so.1 with AUDIOPIPE_STUB_GPUS devices: enough of NVML for Dask to place workers, and no GPU.
   A handle is the device's number plus one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory2_t;
typedef struct { unsigned int gpu, memory; } rates_t;
static unsigned int devices(void) { const char *n = getenv("AUDIOPIPE_STUB_GPUS"); return n ? (unsigned)atoi(n) : 2; }
int nvmlInit(void) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned int flags) { (void)flags; return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code ? "stub error" : "Success"; }
int nvmlSystemGetDriverVersion(char *v, unsigned int n) { snprintf(v, n, "580.00"); return 0; }
int nvmlSystemGetCudaDriverVersion(int *v) { *v = 13000; return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 13000; return 0; }
int nvmlDeviceGetCount(unsigned int *n) { *n = devices(); return 0; }
int nvmlDeviceGetCount_v2(unsigned int *n) { *n = devices(); return 0; }
int nvmlDeviceGetHandleByIndex(unsigned int i, void **h) { if (i >= devices()) return 2; *h = (void *)(size_t)(i + 1); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **h) { return nvmlDeviceGetHandleByIndex(i, h); }
int nvmlDeviceGetIndex(void *h, unsigned int *i) { *i = (unsigned)(size_t)h - 1; return 0; }
int nvmlDeviceGetUUID(void *h, char *u, unsigned int n) { snprintf(u, n, "GPU-00000000-0000-0000-0000-%012u", (unsigned)(size_t)h - 1); return 0; }
int nvmlDeviceGetHandleByUUID(const char *u, void **h) { *h = (void *)(size_t)(atoi(u + strlen(u) - 4) + 1); return 0; }
int nvmlDeviceGetName(void *h, char *s, unsigned int n) { (void)h; snprintf(s, n, "Stub"); return 0; }
int nvmlDeviceGetMemoryInfo(void *h, memory_t *m) { (void)h; m->total = 24ULL << 30; m->used = 1ULL << 30; m->free = m->total - m->used; return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *h, memory2_t *m) { (void)h; m->total = 24ULL << 30; m->used = 1ULL << 30; m->reserved = 0; m->free = m->total - m->used; return 0; }
int nvmlDeviceGetUtilizationRates(void *h, rates_t *r) { (void)h; r->gpu = 7; r->memory = 3; return 0; }
int nvmlDeviceGetMigMode(void *h, unsigned int *now, unsigned int *next) { (void)h; *now = *next = 0; return 0; }
int nvmlDeviceGetCpuAffinity(void *h, unsigned int n, unsigned long *set) { (void)h; memset(set, 0, n * sizeof *set); set[0] = 1; return 0; }
int nvmlDeviceGetComputeRunningProcesses(void *h, unsigned int *n, void *p) { (void)h; (void)p; *n = 0; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v2(void *h, unsigned int *n, void *p) { (void)h; (void)p; *n = 0; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned int *n, void *p) { (void)h; (void)p; *n = 0; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *h, int *a, int *b) { (void)h; *a = 8; *b = 6; return 0; }
