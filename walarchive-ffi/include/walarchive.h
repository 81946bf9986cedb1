/* The C interface of walarchive: opaque clusters and errors, calls that return status numbers.
 * Made by cbindgen from the source, which a test compares. */

#ifndef WALARCHIVE_H
#define WALARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a callback of a store gives back besides its status; filled through the calls walarchive_answer_...
typedef struct walarchive_answer walarchive_answer;

// One cluster of an archive, as settings name them. Any number of threads may use one at once; a process that was forked opens
// another one.
typedef struct walarchive_cluster walarchive_cluster;

// What went wrong. It belongs to the caller, who gives it back with walarchive_error_free.
typedef struct walarchive_error walarchive_error;

// A store of the caller's: a flat map of keys to objects that never change. The callbacks give status numbers: 0 for done, 1 for
// an object that is proven absent, 5 for a store that cannot be reached (which is tried again), 6 for any other failure.
// They may be called from several threads at once, must not throw or jump out of themselves, and must not call
// the cluster that they belong to. Keys are relative paths of the characters A-Z a-z 0-9 . _ - and /.
typedef struct walarchive_storage {
  // Given to each callback.
  void *context;
  // Stores an object, whole and durably (it survives the loss of power), if there is none of that key. If there is one it
  // stays as it is, and the callback tells so by walarchive_answer_exists. Of several writers of one key exactly one succeeds.
  uint32_t (*create)(void *context,
                     const char *key,
                     const uint8_t *payload,
                     size_t length,
                     struct walarchive_answer *answer);
  // Reads `length` bytes of an object from `offset` on; fewer, or none, where it ends before. The callback gives them by
  // walarchive_answer_bytes, and the size of the whole object by walarchive_answer_size.
  uint32_t (*get)(void *context,
                  const char *key,
                  uint64_t offset,
                  uint64_t length,
                  struct walarchive_answer *answer);
  // Tells all objects whose keys begin with `prefix` (all, where it is empty), in any order, each by walarchive_answer_entry.
  uint32_t (*list)(void *context, const char *prefix, struct walarchive_answer *answer);
  // Removes an object; that there is none is success, too.
  uint32_t (*remove)(void *context, const char *key, struct walarchive_answer *answer);
  // Called once, when no callback will be called any more. May be null.
  void (*release)(void *context);
} walarchive_storage;

// Hears of the progress of one call. Any of the functions may be null. They may be called from several threads at
// once, and none is called when the call has returned.
typedef struct walarchive_progress {
  // Given to each function.
  void *context;
  // Work of `total` bytes begins.
  void (*begin)(void *context, const char *what, uint64_t total);
  // That many bytes more are done; 0 where it is only asked whether to go on. False ends the call with the kind "cancelled".
  bool (*advance)(void *context, uint64_t bytes);
  // Something that people should know meanwhile.
  void (*note)(void *context, const char *message);
  // The work that began last is over.
  void (*end)(void *context);
} walarchive_progress;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of this interface. It changes when a caller has to be compiled anew.
uint32_t walarchive_abi_version(void);

// The version of the library, as a string that lives as long as the library is loaded.
const char *walarchive_version(void);

// What a status number means, as a string that lives as long as the library is loaded. The numbers are the exit codes of
// the programs.
const char *walarchive_status_text(uint32_t status);

// Compresses and seals `length` bytes at `data` for the recipients that the settings name, as one age file that needs no archive:
// `age -d -i KEY | zstd -d` opens it, too. Nothing is asked of the archive.
//
// # Safety
//
// `cluster` came from walarchive_open; `data` points to `length` bytes; `sealed` and `sealed_length` may be written to; `error`
// is null or may be written to.
uint32_t walarchive_seal(const struct walarchive_cluster *cluster,
                         const uint8_t *data,
                         size_t length,
                         uint8_t **sealed,
                         size_t *sealed_length,
                         struct walarchive_error **error);

// Opens what walarchive_seal made, with an identity that the settings name: nothing is given that was not proven. More than
// `limit` bytes are refused as damaged.
//
// # Safety
//
// `cluster` came from walarchive_open; `sealed` points to `sealed_length` bytes; `data` and `length` may be written to; `error`
// is null or may be written to.
uint32_t walarchive_unseal(const struct walarchive_cluster *cluster,
                           const uint8_t *sealed,
                           size_t sealed_length,
                           uint64_t limit,
                           uint8_t **data,
                           size_t *length,
                           struct walarchive_error **error);

// Frees the bytes that walarchive_seal or walarchive_unseal has given; null is nothing to free.
//
// # Safety
//
// Pointer and length came from one call of this library, and were not freed before.
void walarchive_buffer_free(uint8_t *buffer, size_t length);

// Takes settings and makes a cluster of them, which belongs to the caller. Nothing is asked of the archive yet.
//
// `config_file` is the path of a settings file, or null for the usual one if it is there. `settings` are the environment
// variables of the programs as an array of "NAME=value" that ends in a null pointer (WALARCHIVE_ARCHIVE, WALARCHIVE_CLUSTER,
// WALARCHIVE_RECIPIENTS and so on); null for the environment of this process.
//
// # Safety
//
// Strings end in NUL; `cluster` may be written to; `error` is null or may be written to.
uint32_t walarchive_open(const char *config_file,
                         const char *const *settings,
                         struct walarchive_cluster **cluster,
                         struct walarchive_error **error);

// As walarchive_open, with an archive in a store of the caller's: the settings need not name any. `storage` is copied; null for
// the stores that the settings name. Its `release` is called when the cluster is closed, or this call fails.
//
// # Safety
//
// As walarchive_open; `storage` is null or fulfils its contract.
uint32_t walarchive_open_in(const char *config_file,
                            const char *const *settings,
                            const struct walarchive_storage *storage,
                            struct walarchive_cluster **cluster,
                            struct walarchive_error **error);

// Gives a cluster back; null is nothing to close.
//
// # Safety
//
// `cluster` came from walarchive_open, was not closed before, and no call uses it.
void walarchive_close(struct walarchive_cluster *cluster);

// Makes the archive, or finds the one that is there: then nothing is changed. One that is `encrypted` needs somebody who can read
// it: a recipient, or an identity, in the settings.
//
// # Safety
//
// `cluster` came from walarchive_open; `error` is null or may be written to.
uint32_t walarchive_init(const struct walarchive_cluster *cluster,
                         bool encrypted,
                         struct walarchive_error **error);

// Stores a complete WAL file under its name, as archive_command asks for: 0 means that the archive durably holds just this
// content. `callbacks` are asked ten times a second whether to go on.
//
// # Safety
//
// `cluster` came from walarchive_open; strings end in NUL; `callbacks` is null or fulfils its contract; `error` is null or may
// be written to.
uint32_t walarchive_wal_push(const struct walarchive_cluster *cluster,
                             const char *file,
                             const struct walarchive_progress *callbacks,
                             struct walarchive_error **error);

// Fetches a WAL file to `dest`, as restore_command asks for: `dest` appears when every byte was proven. 1 means that the file is
// proven to be absent. `callbacks` are asked ten times a second whether to go on.
//
// # Safety
//
// `cluster` came from walarchive_open; strings end in NUL; `callbacks` is null or fulfils its contract; `error` is null or may
// be written to.
uint32_t walarchive_wal_fetch(const struct walarchive_cluster *cluster,
                              const char *name,
                              const char *dest,
                              const struct walarchive_progress *callbacks,
                              struct walarchive_error **error);

// The WAL that is stored, as `walarchive wal list --json` tells it.
//
// # Safety
//
// `cluster` came from walarchive_open; `json` and `error` are null or may be written to.
uint32_t walarchive_wal_list(const struct walarchive_cluster *cluster,
                             char **json,
                             struct walarchive_error **error);

// The backups that are stored, oldest first, as `walarchive backup list --json` tells them (without what they share).
//
// # Safety
//
// `cluster` came from walarchive_open; `json` and `error` are null or may be written to.
uint32_t walarchive_backup_list(const struct walarchive_cluster *cluster,
                                char **json,
                                struct walarchive_error **error);

// What can be restored and what stands in the way, as `walarchive status --json` tells it.
//
// # Safety
//
// `cluster` came from walarchive_open; `json` and `error` are null or may be written to.
uint32_t walarchive_status(const struct walarchive_cluster *cluster,
                           char **json,
                           struct walarchive_error **error);

// Backs up the server that the settings name, as `walarchive backup create` does. 0 means that the backup is stored, and can be
// restored; `json` tells of it, and of pages that are damaged on the server's disk.
//
// # Safety
//
// `cluster` came from walarchive_open; `callbacks` is null or fulfils its contract; `json` and `error` are null or may be
// written to.
uint32_t walarchive_backup_create(const struct walarchive_cluster *cluster,
                                  bool full,
                                  const struct walarchive_progress *callbacks,
                                  char **json,
                                  struct walarchive_error **error);

// Restores the cluster into `target_dir`, which must be absent or empty. `target` is where recovery ends, as `walarchive restore
// --to` takes it, or null for the newest state; the restored server fetches its WAL with `restore_command`.
//
// # Safety
//
// `cluster` came from walarchive_open; strings end in NUL; `callbacks` is null or fulfils its contract; `json` and `error`
// are null or may be written to.
uint32_t walarchive_restore(const struct walarchive_cluster *cluster,
                            const char *target_dir,
                            const char *target,
                            const char *restore_command,
                            const struct walarchive_progress *callbacks,
                            char **json,
                            struct walarchive_error **error);

// Proves what is stored, as `walarchive verify` does; with `deep` every byte of it. `json` tells of problems, too: then the
// status is that of the gravest.
//
// # Safety
//
// `cluster` came from walarchive_open; `callbacks` is null or fulfils its contract; `json` and `error` are null or may be
// written to.
uint32_t walarchive_verify(const struct walarchive_cluster *cluster,
                           bool deep,
                           const struct walarchive_progress *callbacks,
                           char **json,
                           struct walarchive_error **error);

// The status of an error: an exit code of the programs, as walarchive_status_text tells it.
//
// # Safety
//
// `error` came from a call of this library and was not freed.
uint32_t walarchive_error_status(const struct walarchive_error *error);

// The kind of an error, finer than its status: "absent", "usage", "conflict", "damaged", "unreachable" and so on. Null for null.
//
// # Safety
//
// `error` came from a call of this library; the string lives as long as it.
const char *walarchive_error_kind(const struct walarchive_error *error);

// What was attempted, on what, what came of it and what to do, in one line. Null for null.
//
// # Safety
//
// `error` came from a call of this library; the string lives as long as it.
const char *walarchive_error_message(const struct walarchive_error *error);

// The object that an error is about: an archive's key, a file, a server. Null when there is none.
//
// # Safety
//
// `error` came from a call of this library; the string lives as long as it.
const char *walarchive_error_object(const struct walarchive_error *error);

// Frees an error; null is nothing to free.
//
// # Safety
//
// `error` came from a call of this library and was not freed before.
void walarchive_error_free(struct walarchive_error *error);

// Frees a string that a call has given; null is nothing to free.
//
// # Safety
//
// `string` came from a call of this library and was not freed before.
void walarchive_string_free(char *string);

// Says, in `create`, that there is an object of that key already.
//
// # Safety
//
// `answer` is the one that the callback was given, and the callback has not returned.
void walarchive_answer_exists(struct walarchive_answer *answer);

// Gives, in `get`, the next bytes; it may be called again for more.
//
// # Safety
//
// As walarchive_answer_exists; `data` points to `length` bytes.
void walarchive_answer_bytes(struct walarchive_answer *answer, const uint8_t *data, size_t length);

// Tells, in `get`, the size of the whole object.
//
// # Safety
//
// As walarchive_answer_exists.
void walarchive_answer_size(struct walarchive_answer *answer, uint64_t size);

// Tells, in `list`, one object and its size.
//
// # Safety
//
// As walarchive_answer_exists; `key` ends in NUL.
void walarchive_answer_entry(struct walarchive_answer *answer, const char *key, uint64_t size);

// Tells, in any callback that fails, why: it becomes part of the error's message.
//
// # Safety
//
// As walarchive_answer_exists; `message` ends in NUL.
void walarchive_answer_message(struct walarchive_answer *answer, const char *message);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WALARCHIVE_H */
