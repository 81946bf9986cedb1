/* The archive module of PostgreSQL 15 to 18: archive_library = 'walarchive'. The archiver stores WAL itself, through
 * libwalarchive, and starts no program for it.
 *
 * The settings are those of the programs: the settings file, and WALARCHIVE_* in the server's environment. Each version of the
 * server needs a module of its own; the Makefile beside the library makes it.
 *
 * Two worlds meet here. The server's functions may leave by longjmp, so none is called while the library runs. The library
 * has threads, so the server's signals are held back while it runs: a thread inherits that, and never sees one. */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server.h"
#include "walarchive.h"

/* How long, in milliseconds, the library tries at start whether the archive can be opened. */
#define LOOK 10000
/* How long the last files may keep a server from stopping when the archive does not take them, and each at least. */
#define GRACE 10000
#define LEAST 1000
/* How long a file is tried again in here: the server tries again itself, and looks after its signals in between. */
#define RETRY_BUDGET "10s"

/* walarchive.config_file. */
static char *config_file;

/* What the archiver has. The postmaster may load the module, too, but never comes to open anything: threads and connections
 * would not outlive the fork. */
static walarchive_cluster *cluster;
static int64_t opened_with;
static pid_t postmaster;
static int64_t grace = GRACE;
/* Tries that have failed since the last file was stored. */
static unsigned failures;

/* One call of the library. */
typedef struct {
    int64_t until; /* Or 0. */
    _Atomic int64_t stopping_since; /* Or 0. */
    _Atomic(const char *) ended_by; /* Or null. */
} attempt;

static void say(int level, const char *about, const char *what)
{
    if (errstart(level, NULL)) {
        errmsg_internal("walarchive: %s: %s", about, what);
        errfinish(__FILE__, __LINE__, __func__);
    }
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Whether this is the archiver's last cycle, for which the server waits with its end: only then does the control file say that
 * the server is shut down while there is an archiver. The signal that begins the cycle may have been taken long before. */
static bool is_last_cycle(void)
{
    int32_t state = 0;
    int file = open(CONTROL_FILE, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    bool known = pread(file, &state, sizeof state, CONTROL_FILE_STATE_AT) == (ssize_t)sizeof state;
    close(file);
    return known && (state == DB_SHUTDOWNED || state == DB_SHUTDOWNED_IN_RECOVERY);
}

/* Why the call must end now; null where it may go on. */
static const char *end_of(attempt *this)
{
    sigset_t waiting;
    if (sigpending(&waiting) == 0 && (sigismember(&waiting, SIGTERM) == 1 || sigismember(&waiting, SIGQUIT) == 1))
        return "the archiver was told to stop; the file is archived after the next start";
    if (getppid() != postmaster)
        return "the server is gone; the file is archived after the next start";
    int64_t time = now();
    if (this->until != 0 && time >= this->until)
        return "the archive did not answer in time; it is tried again with the next file";
    if (this->stopping_since == 0) {
        if (is_last_cycle())
            this->stopping_since = time;
    } else if (time - this->stopping_since >= grace) {
        return "the server stops, and the archive did not take the file in time; it is archived after the next start";
    }
    return NULL;
}

/* Asked by the library ten times a second, on any of its threads. */
static bool wanted(void *context, uint64_t bytes)
{
    attempt *this = context;
    (void)bytes;
    const char *reason = end_of(this);
    if (reason != NULL)
        this->ended_by = reason;
    return reason == NULL;
}

/* Holds back what the server handles. A fault cannot be held back; what children tell is no signal of the server's, and may be
 * what a thread of the library waits for. */
static void hold_signals(sigset_t *before)
{
    sigset_t held;
    sigfillset(&held);
    sigdelset(&held, SIGCHLD);
    pthread_sigmask(SIG_SETMASK, &held, before);
}

static void release_signals(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* Stores a file. Says whether it is durable; otherwise `error` is the caller's. */
static bool push(const char *path, attempt *this, walarchive_error **error)
{
    const walarchive_progress asked = {.context = this, .advance = wanted};
    sigset_t before;
    hold_signals(&before);
    uint32_t status = walarchive_wal_push(cluster, path, &asked, error);
    release_signals(&before);
    return status == 0;
}

/* Tells at once what is wrong with the archive, which is opened with the first file: one that is not there. An error about that
 * file means that all is well. */
static void look(void)
{
    static const char absent[] = "pg_wal/FFFFFFFF.history";
    attempt this = {.until = now() + LOOK};
    walarchive_error *error = NULL;
    if (push(absent, &this, &error))
        return;
    const char *about = walarchive_error_object(error);
    if (about == NULL || strcmp(about, absent) != 0)
        say(WARNING, "WAL cannot be archived", this.ended_by != NULL ? this.ended_by : walarchive_error_message(error));
    walarchive_error_free(error);
}

/* Takes the settings, again after each reload. Wrong ones are told here, and then with each file that is not archived: a
 * callback check_configured that said no would keep the failures out of pg_stat_archiver. */
static walarchive_error *take_settings(void)
{
    walarchive_error *error = NULL;
    sigset_t before;
    hold_signals(&before);
    walarchive_close(cluster);
    cluster = NULL;
    walarchive_open(config_file == NULL || *config_file == '\0' ? NULL : config_file, NULL, &cluster, &error);
    release_signals(&before);
    opened_with = PgReloadTime;
    return error;
}

static void start(void)
{
    postmaster = getppid();
    /* Before there is a thread that could read the environment. What is set already, counts. */
    setenv("WALARCHIVE_RETRY_BUDGET", RETRY_BUDGET, 0);
    setenv("WALARCHIVE_STORE_RETRY_BUDGET", RETRY_BUDGET, 0);
    walarchive_error *error = take_settings();
    if (error != NULL)
        say(WARNING, "WAL cannot be archived", walarchive_error_message(error));
    else
        look();
    walarchive_error_free(error);
}

static bool archive(const char *name, const char *path)
{
    char about[128];
    walarchive_error *error = NULL;
    attempt this = {0};
    bool stored = false;
    if (cluster == NULL || opened_with != PgReloadTime)
        error = take_settings();
    if (error == NULL)
        stored = push(path, &this, &error);
    if (this.stopping_since != 0) {
        /* What failed before is not waited for a second time. */
        int64_t left = grace - (now() - this.stopping_since);
        grace = stored ? GRACE : left < LEAST ? LEAST : left;
    }
    if (!stored) {
        failures++;
        snprintf(about, sizeof about, "%s is not archived", name);
        say(LOG, about, this.ended_by != NULL ? this.ended_by : walarchive_error_message(error));
    } else if (failures > 0) {
        snprintf(about, sizeof about, "%s is archived, after %u failed tries", name, failures);
        say(LOG, "WAL is archived again", about);
        failures = 0;
    }
    walarchive_error_free(error);
    return stored;
}

const Pg_magic_struct *Pg_magic_func(void)
{
    static const Pg_magic_struct magic = {
        .len = sizeof magic,
        .version = PG_MAJORVERSION_NUM * 100,
        .funcmaxargs = 100,
        .indexmaxkeys = 32,
        .namedatalen = 64,
        .float8byval = sizeof(void *) >= 8,
        .abi_extra = "PostgreSQL",
#if PG_MAJORVERSION_NUM >= 18
        .name = "walarchive",
        .module_version = NULL,
#endif
    };
    return &magic;
}

/* In the postmaster, too, where shared_preload_libraries names the module. */
void _PG_init(void)
{
    DefineCustomStringVariable("walarchive.config_file", "The settings file of walarchive.",
                               "Empty for WALARCHIVE_CONFIG of the server's environment, or the usual file if it is there.",
                               &config_file, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
    MarkGUCPrefixReserved("walarchive");
}

#if PG_MAJORVERSION_NUM >= 16
static bool archive_file(ArchiveModuleState *state, const char *file, const char *path)
{
    (void)state;
    return archive(file, path);
}

/* Called in the archiver, when it has started. */
const ArchiveModuleCallbacks *_PG_archive_module_init(void)
{
    static const ArchiveModuleCallbacks callbacks = {.archive_file_cb = archive_file};
    start();
    return &callbacks;
}
#else
void _PG_archive_module_init(ArchiveModuleCallbacks *callbacks)
{
    callbacks->archive_file_cb = archive;
    start();
}
#endif
