#include "steps.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

namespace shoal {

constexpr int SOURCES_MAX = 256;
constexpr int COVERS_MAX = 32;
/// Entries of a folder that may be bound again one by one.
constexpr int ENTRIES_MAX = 4096;
constexpr int LINKS_MAX = 8;
constexpr size_t MOUNTINFO_BYTES_MAX = 16u << 20;

struct State {
  int sources[SOURCES_MAX];
  bool cloned[SOURCES_MAX];
  /// Those file systems that `cover` made: in them anything may be created.
  dev_t covers[COVERS_MAX];
  int cover_fds[COVERS_MAX];
  int cover_count = 0;
};

/// Only its one caller's thread is here; so one state is enough, and the stack stays small.
static State state;

/// Of this network namespace.
static bool raise_loopback() {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  ifreq request;
  memset(&request, 0, sizeof(request));
  strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  bool done = ioctl(fd, SIOCSIFFLAGS, &request) == 0;
  close(fd);
  return done;
}

/// mkdir -p; the parts that are there already stay as they are.
static bool make_path(char *path, mode_t mode) {
  for (char *at = path + 1; *at != 0; at++) {
    if (*at != '/') continue;
    *at = 0;
    bool done = mkdir(path, 0755) == 0 || errno == EEXIST;
    *at = '/';
    if (!done) return false;
  }
  return mkdir(path, mode) == 0 || errno == EEXIST;
}

static bool make_entry(char *path, bool is_folder) {
  if (is_folder) return make_path(path, 0755);
  char *slash = strrchr(path, '/');
  if (slash != path) {
    *slash = 0;
    bool done = make_path(path, 0755);
    *slash = '/';
    if (!done) return false;
  }
  int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
  if (fd < 0) return false;
  close(fd);
  return true;
}

/// Shows one entry of the folder behind `from` in the folder behind `to`, which is a file system of ours.
static void bind_entry(int from, int to, const char *name) {
  struct stat facts;
  if (fstatat(from, name, &facts, AT_SYMLINK_NOFOLLOW) != 0) return;
  if (S_ISLNK(facts.st_mode)) {
    char target[PATH_MAX];
    ssize_t length = readlinkat(from, name, target, sizeof(target) - 1);
    if (length < 0) return;
    target[length] = 0;
    if (symlinkat(target, to, name) != 0) return;
    return;
  }
  if (S_ISDIR(facts.st_mode)) {
    if (mkdirat(to, name, 0755) != 0) return;
  } else {
    int fd = openat(to, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0) return;
    close(fd);
  }
  char source[64 + NAME_MAX], target[64 + NAME_MAX];
  snprintf(source, sizeof(source), "/proc/self/fd/%d/%s", from, name);
  snprintf(target, sizeof(target), "/proc/self/fd/%d/%s", to, name);
  // An entry that cannot be bound (it has just gone, say) is missing in the task: no more.
  if (mount(source, target, nullptr, MS_BIND | MS_REC, nullptr) != 0) unlinkat(to, name, 0);
}

/// Lays a file system of our own over `folder` (at `at`), with all its entries bound into it: now more can be
/// made beside them, and nobody else sees it.
static bool cover(const char *folder, const char *at, Failure &failure) {
  struct stat facts;
  int from = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (from < 0 || fstat(from, &facts) != 0 || state.cover_count == COVERS_MAX) {
    failure.set("%s: %s", folder, from < 0 ? strerror(errno) : "too many mount points to make");
    if (from >= 0) close(from);
    return false;
  }
  char options[64];
  snprintf(options, sizeof(options), "mode=%o,uid=%u,gid=%u,size=64m", facts.st_mode & 07777, facts.st_uid,
           facts.st_gid);
  int to = -1;
  DIR *entries = nullptr;
  bool done = false;
  if (mount("shoal", at, "tmpfs", 0, options) != 0) {
    failure.set("mount tmpfs at %s: %s", at, strerror(errno));
  } else if ((to = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || fstat(to, &facts) != 0 ||
             (entries = fdopendir(dup(from))) == nullptr) {
    failure.set("open %s: %s", at, strerror(errno));
  } else {
    state.cover_fds[state.cover_count] = to;
    state.covers[state.cover_count++] = facts.st_dev;
    int count = 0;
    while (dirent *entry = readdir(entries)) {
      if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
      if (++count > ENTRIES_MAX) break;
      bind_entry(from, to, entry->d_name);
    }
    done = count <= ENTRIES_MAX;
    if (!done) failure.set("%s has too many entries to make a mount point in it", folder);
  }
  if (entries != nullptr) closedir(entries);
  close(from);
  return done;
}

static bool is_ours(dev_t device) {
  for (int i = 0; i < state.cover_count; i++) {
    if (state.covers[i] == device) return true;
  }
  return false;
}

/// Makes `path` exist in the task's view alone. What exists is left as it is.
static bool mount_point(const char *path, bool is_folder, Failure &failure) {
  char wanted[PATH_MAX], folder[PATH_MAX], real[PATH_MAX];
  snprintf(wanted, sizeof(wanted), "%s", path);
  struct stat facts;
  for (int links = 0; links <= LINKS_MAX; links++) {
    if (stat(wanted, &facts) == 0) {
      if (S_ISDIR(facts.st_mode) == is_folder) return true;
      failure.set("%s is %sa directory", path, is_folder ? "not " : "");
      return false;
    }
    if (lstat(wanted, &facts) != 0) break;
    // A link that leads nowhere: what it names is to be made.
    ssize_t length = readlink(wanted, real, sizeof(real) - 1);
    if (length <= 0) break;
    real[length] = 0;
    snprintf(folder, sizeof(folder), "%s", wanted);
    char *slash = strrchr(folder, '/');
    slash[slash == folder ? 1 : 0] = 0;
    if (real[0] == '/') snprintf(wanted, sizeof(wanted), "%s", real);
    else if (snprintf(wanted, sizeof(wanted), "%s/%s", folder, real) >= PATH_MAX) break;
  }
  snprintf(folder, sizeof(folder), "%s", wanted);
  do {
    char *slash = strrchr(folder, '/');
    if (slash == nullptr) break;
    slash[slash == folder ? 1 : 0] = 0;
  } while (stat(folder, &facts) != 0 && folder[1] != 0);
  if (realpath(folder, real) == nullptr) {
    failure.set("%s: %s", folder, strerror(errno));
    return false;
  }
  if (!is_ours(facts.st_dev) && !cover(real, real, failure)) return false;
  // By the real name: the text of `wanted` may lead through links.
  char made[2 * PATH_MAX];
  size_t skip = folder[1] == 0 ? 1 : strlen(folder) + 1;
  snprintf(made, sizeof(made), "%s/%s", real[1] == 0 ? "" : real, wanted + skip);
  if (make_entry(made, is_folder)) return true;
  failure.set("make %s: %s", path, strerror(errno));
  return false;
}

/// A root of our own, in which new entries can be made: all entries of the real one bound into a new file system.
static bool cover_root(const char *at, Failure &failure) {
  if (!cover("/", at, failure)) return false;
  if (chdir(at) != 0 || syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0 || chdir("/") != 0) {
    failure.set("new root: %s", strerror(errno));
    return false;
  }
  return true;
}

/// Undoes the octal escapes of mountinfo.
static void unescape(char *text) {
  char *to = text;
  for (char *from = text; *from != 0; from++) {
    if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] != 0 && from[3] != 0) {
      *to++ = static_cast<char>((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
      from += 3;
    } else {
      *to++ = *from;
    }
  }
  *to = 0;
}

/// Takes all mounts of one kind out of this mount namespace. Copies of mounted network namespaces would keep those
/// alive for as long as the task is.
static void detach_all(const char *type) {
  FILE *file = fopen("/proc/self/mountinfo", "re");
  if (file == nullptr) return;
  char *line = nullptr;
  size_t capacity = 0, total = 0;
  char pattern[64];
  snprintf(pattern, sizeof(pattern), " - %s ", type);
  // The list changes while mounts go, so it is read to its end first.
  char **found = nullptr;
  size_t count = 0;
  while (getline(&line, &capacity, file) > 0 && (total += strlen(line)) < MOUNTINFO_BYTES_MAX) {
    if (strstr(line, pattern) == nullptr) continue;
    char *at = line;
    for (int field = 0; field < 4 && at != nullptr; field++) at = strchr(at, ' ') ? strchr(at, ' ') + 1 : nullptr;
    if (at == nullptr) continue;
    at[strcspn(at, " ")] = 0;
    unescape(at);
    char **more = static_cast<char **>(realloc(found, (count + 1) * sizeof(char *)));
    if (more == nullptr) break;
    found = more;
    if ((found[count] = strdup(at)) != nullptr) count++;
  }
  for (size_t i = count; i-- > 0;) {
    umount2(found[i], MNT_DETACH);
    free(found[i]);
  }
  free(found);
  free(line);
  fclose(file);
}

static bool make_file(const Step &step) {
  const char *path = step.argument[0];
  int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return false;
  bool done = write_all(fd, step.argument[4], step.length[4]) &&
              fchown(fd, static_cast<uid_t>(atol(step.argument[2])), static_cast<gid_t>(atol(step.argument[3]))) == 0 &&
              fchmod(fd, static_cast<mode_t>(strtoul(step.argument[1], nullptr, 8))) == 0;
  close(fd);
  explicit_bzero(step.argument[4], step.length[4]);
  return done;
}

static bool write_value(const char *path, const char *value) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  bool done = write_text(fd, value);
  int code = errno;
  close(fd);
  errno = code;
  return done;
}

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

constexpr unsigned int RECURSIVE = 0x8000;

/// Makes mounts read-only and the like: the one at `path`, or all below it too.
static bool set_attributes(const char *path, bool recursive, unsigned long flags) {
  struct {
    uint64_t set, clear, propagation, userns;
  } attributes = {flags, 0, 0, 0};
  if (syscall(SYS_mount_setattr, AT_FDCWD, path, recursive ? RECURSIVE : 0, &attributes, sizeof(attributes)) == 0)
    return true;
  if (errno != ENOSYS) return false;
  // Kernels before 5.12: the one mount at least. MOUNT_ATTR_* have the values of ST_*, which MS_* have too.
  return mount(nullptr, path, nullptr, MS_REMOUNT | MS_BIND | (flags & 0xf), nullptr) == 0;
}

static bool covers_read_only() {
  for (int i = 0; i < state.cover_count; i++) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", state.cover_fds[i]);
    if (!set_attributes(path, false, MS_RDONLY)) return false;
  }
  return true;
}

#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#endif

/// Holds what is at `path` as a mount of its own, with the attributes that it has now; on kernels before 5.2, by
/// name only.
static bool open_source(int index, const char *path, bool recursive) {
  if (index < 0 || index >= SOURCES_MAX) return errno = EINVAL, false;
  constexpr unsigned int CLONE = 1;
  int fd = static_cast<int>(
      syscall(SYS_open_tree, AT_FDCWD, path, CLONE | O_CLOEXEC | (recursive ? RECURSIVE : 0)));
  if (fd < 0 && errno == ENOSYS) fd = open(path, O_PATH | O_CLOEXEC);
  else if (fd >= 0) state.cloned[index] = true;
  return (state.sources[index] = fd) >= 0;
}

/// The number in `@3`, which is the source that was opened as such, whatever has been mounted over its name since.
static int source_index(const char *text) {
  int index = text[0] == '@' ? atoi(text + 1) : -1;
  return index < SOURCES_MAX ? index : -1;
}

static const char *or_null(const char *text) { return text[0] == 0 ? nullptr : text; }

static bool mount_one(char *const *a) {
  const char *source = a[1];
  unsigned long flags = strtoul(a[3], nullptr, 10);
  int index = source_index(source);
  char name[64];
  if (index >= 0) {
    constexpr unsigned int FROM_EMPTY_PATH = 4, TO_SYMLINKS = 0x10;
    if (state.cloned[index])
      return syscall(SYS_move_mount, state.sources[index], "", AT_FDCWD, a[0], FROM_EMPTY_PATH | TO_SYMLINKS) == 0;
    snprintf(name, sizeof(name), "/proc/self/fd/%d", state.sources[index]);
    source = name;
  }
  return mount(source, a[0], or_null(a[2]), flags, or_null(a[4])) == 0;
}

static bool is_folder(const char *kind) {
  int index = source_index(kind);
  struct stat facts;
  if (index < 0) return kind[0] == 'd';
  return fstat(state.sources[index], &facts) == 0 && S_ISDIR(facts.st_mode);
}

/// One step. `failure` is set here only where `errno` does not say enough.
static bool perform(const Step &step, Failure &failure) {
  char *const *a = step.argument;
  switch (step.op) {
    case 'o': return open_source(atoi(a[0]), a[1], a[2][0] == '1');
    case 'm': return mount_one(a);
    case 'a': return set_attributes(a[0], a[1][0] == '1', strtoul(a[2], nullptr, 10));
    case 'p': return mount_point(a[0], is_folder(a[1]), failure);
    case 'k': return access(a[0], F_OK) == 0 || make_entry(a[0], is_folder(a[1]));
    case 'f': return make_file(step);
    case 'w': return write_value(a[0], a[1]);
    case 'l': return symlink(a[1], a[0]) == 0;
    case 'q': return cover_root(a[0], failure);
    case 'x': return detach_all(a[0]), true;
    case 'u': return raise_loopback();
    case 'z': return covers_read_only();
    default: return errno = EINVAL, false;
  }
}

static int arguments_of(char op) {
  switch (op) {
    case 'm': case 'f': return 5;
    case 'a': case 'o': return 3;
    case 'x': case 'q': case 'u': case 'z': return 1;
    default: return 2;
  }
}

bool perform_steps(const Plan &plan, bool of_run, Failure &failure) {
  size_t offset = 0;
  Step step;
  bool is_due = !of_run;
  while (next_step(plan, offset, step)) {
    if (step.op < 'a' || step.op > 'z') continue;
    if (step.op == 'y') {
      if (!of_run) return true;
      is_due = true;
      continue;
    }
    if (!is_due) continue;
    int wanted = arguments_of(step.op);
    if (step.count < wanted) {
      failure.set("malformed plan");
      return false;
    }
    // One argument more: the step may fail.
    bool may_fail = step.count > wanted;
    if (perform(step, failure) || may_fail) {
      failure.text[0] = 0;
      continue;
    }
    const char *about = step.op == 'o' ? step.argument[1] : step.argument[0];
    if (failure.text[0] == 0) failure.set("%s: %s", about, strerror(errno));
    return false;
  }
  return true;
}

}  // namespace shoal
