/* What the module needs to know of PostgreSQL 15 to 18, in place of its headers: they differ from version to version, and
 * need not be installed. PG_MAJORVERSION_NUM says for which server the module is. */
#ifndef WALARCHIVE_SERVER_H
#define WALARCHIVE_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#if !defined PG_MAJORVERSION_NUM || PG_MAJORVERSION_NUM < 15 || PG_MAJORVERSION_NUM > 18
#error "PG_MAJORVERSION_NUM must be 15, 16, 17 or 18: earlier servers have no archive modules, later ones are not known"
#endif

/* The server compares this, byte by byte, with its own: a module of another version is refused. */
typedef struct {
    int len;
    int version;
    int funcmaxargs;
    int indexmaxkeys;
    int namedatalen;
    int float8byval;
    char abi_extra[32];
#if PG_MAJORVERSION_NUM >= 18
    const char *name;
    const char *module_version;
#endif
} Pg_magic_struct;

#if PG_MAJORVERSION_NUM >= 16
typedef struct {
    void *private_data;
} ArchiveModuleState;

typedef struct {
    void (*startup_cb)(ArchiveModuleState *state);
    bool (*check_configured_cb)(ArchiveModuleState *state);
    bool (*archive_file_cb)(ArchiveModuleState *state, const char *file, const char *path);
    void (*shutdown_cb)(ArchiveModuleState *state);
} ArchiveModuleCallbacks;

extern const ArchiveModuleCallbacks *_PG_archive_module_init(void);
#else
typedef struct {
    bool (*check_configured_cb)(void);
    bool (*archive_file_cb)(const char *file, const char *path);
    void (*shutdown_cb)(void);
} ArchiveModuleCallbacks;

extern void _PG_archive_module_init(ArchiveModuleCallbacks *callbacks);
#endif

extern const Pg_magic_struct *Pg_magic_func(void);
extern void _PG_init(void);

/* The server's log. Levels below 21 return. */
enum { LOG = 15, WARNING = 19 };
extern bool errstart(int level, const char *domain);
extern int errmsg_internal(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern void errfinish(const char *file, int line, const char *function);

/* The server's settings. The functions are those that look at a value, of which there are none here. */
enum { PGC_SIGHUP = 2 };
extern void DefineCustomStringVariable(const char *name, const char *short_desc, const char *long_desc, char **value,
                                       const char *boot_value, int context, int flags, void (*check)(void),
                                       void (*assign)(void), void (*show)(void));
extern void MarkGUCPrefixReserved(const char *prefix);

/* When this process read the configuration last. */
extern int64_t PgReloadTime;

/* The state of the cluster in its control file. */
#define CONTROL_FILE "global/pg_control"
#define CONTROL_FILE_STATE_AT 16
enum { DB_SHUTDOWNED = 1, DB_SHUTDOWNED_IN_RECOVERY = 2 };

#endif
