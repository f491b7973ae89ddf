# Can the kernel make idmapped mounts here? Asked of the kernel itself, on the real file systems.
#
# On its own:  sh probe.sh DIR...   one line for each directory, one for an overlay in it, one for tmpfs
# As a part:   probe MACHINE LOAD KIND NAME DIR [KIND NAME DIR]...
#              LOAD    yes: the module overlay may be loaded for the probe, and is unloaded after it
#              KIND    idmap: an idmapped mount of DIR; tmpfs: of a fresh tmpfs (DIR is -)
#                      overlay: an overlay over an idmapped lower directory in DIR, as containerd mounts a container
#                      check: containerd's own SupportsIDMappedMounts, which it makes in DIR below Linux 5.19
# Answers are records: probe NAME RESULT STEP ERRNO DETAIL, with a tab between. RESULT is ok, cannot or unknown.
#
# No trace: idmap and tmpfs use detached mounts only. An overlay needs directories: they exist for some milliseconds,
# and a janitor process removes them (and unloads the module) when the probe ends, however it ends. What even the
# janitor's death left behind, the next probe in that directory removes.

# The programs below are Perl and POSIX shell without a single quote in them: they are arguments.
probe_perl='
use strict;
# One number on every architecture: open_tree 428, move_mount 429, fsopen 430, fsconfig 431, fsmount 432,
# mount_setattr 442. unshare is older and has a number an architecture.
my %unshare = (x86_64 => 272, aarch64 => 97, riscv64 => 97, loongarch64 => 97, ppc64le => 282, ppc64 => 282, s390x => 303);
my %errno = (1 => "EPERM", 2 => "ENOENT", 5 => "EIO", 12 => "ENOMEM", 13 => "EACCES", 16 => "EBUSY", 17 => "EEXIST",
  19 => "ENODEV", 20 => "ENOTDIR", 22 => "EINVAL", 23 => "ENFILE", 24 => "EMFILE", 28 => "ENOSPC", 30 => "EROFS",
  36 => "ENAMETOOLONG", 38 => "ENOSYS", 40 => "ELOOP", 75 => "EOVERFLOW", 87 => "EUSERS", 95 => "EOPNOTSUPP",
  110 => "ETIMEDOUT", 116 => "ESTALE", 122 => "EDQUOT");
# Only these errors answer the question; any other says that it could not be put.
my %answers = (
  unshare => "EINVAL ENOSPC EUSERS ENOSYS EPERM", uid_map => "EPERM", gid_map => "EPERM", open_tree => "ENOSYS",
  mount_setattr => "ENOSYS EINVAL EPERM EOPNOTSUPP", user_namespace => "EPERM",
  tmpfs => "ENOSYS", overlay => "ENOSYS ENODEV EINVAL EPERM EOPNOTSUPP", owner => "-");
my $name_of_temporary = ".userns-node-probe.";
my ($machine, $may_load, @probes) = @ARGV;
my ($janitor_pid, $janitor, $private);
$| = 1;
alarm 20;

sub answer { print join("\t", "probe", @_), "\n" }
sub failed { my ($step, $detail) = @_; my $number = $! + 0; die [$step, $errno{$number} || "errno $number", $detail || "$!"] }

sub wipe {  # $depth bounds it; the directory is ours, mode 700
  my ($directory, $depth) = @_;
  if ($depth && opendir(my $entries, $directory)) {
    for (readdir $entries) {
      next if /^\.\.?$/;
      my $entry = "$directory/$_";
      !-l $entry && -d _ ? wipe($entry, $depth - 1) : unlink $entry;
    }
  }
  rmdir $directory;
}

sub sweep {  # what a probe that was killed together with its janitor left, at least ten minutes ago
  opendir(my $entries, $_[0]) or return;
  for (readdir $entries) {
    next if index($_, $name_of_temporary);
    my @state = lstat "$_[0]/$_";
    wipe("$_[0]/$_", 5) if @state && -d _ && $state[4] == $> && time - $state[10] > 600;
  }
}

# Reads what to undo, and undoes it when the probe closes the pipe or dies.
sub start_janitor {
  pipe(my $from, $janitor) or failed("pipe");
  defined($janitor_pid = fork) or failed("fork");
  if ($janitor_pid) {
    setpgrp $janitor_pid, $janitor_pid;  # what kills our group is not to kill it
    close $from;
    select((select($janitor), $| = 1)[0]);
    return;
  }
  close $janitor;
  alarm 0;
  $SIG{$_} = "IGNORE" for qw(HUP INT TERM PIPE);
  open STDIN, "<", "/dev/null"; open STDOUT, ">", "/dev/null"; open STDERR, ">", "/dev/null";
  local $/ = "\0";
  my @undo = <$from>;
  chomp @undo;
  for (@undo) {
    if ($_ ne "module") { wipe($_, 5) }
    elsif (-e "/sys/module/overlay/initstate") { system("modprobe", "-q", "-r", "overlay") == 0 or system("rmmod", "overlay") }
  }
  exit 0;
}

# Why EPERM of unshare says nothing of containerd: PID 1 starts that, and not out of the chroot or behind the filter of
# system calls (seccomp) that this login has around it, as from ChrootDirectory= or RestrictNamespaces= of sshd. What PID
# 1 has around itself, as in a container, containerd has too. Linux before 5.9 does not count filters.
sub around_login {
  my ($ours, $theirs) = map { join ":", (stat)[0, 1] } "/", "/proc/1/root/";
  return "nobody in a chroot can make a user namespace" if $ours ne $theirs;
  ($ours, $theirs) = map {
    my $filters = 0;
    if (open(my $status, "<", "/proc/$_/status")) { /^Seccomp\w*:\s*(\d+)/ and $filters += $1 for <$status> }
    $filters;
  } "self", 1;
  return $ours > $theirs ? "a filter of system calls around this login forbids it" : "";
}

# EPERM of mount_setattr has two meanings: only root of the user namespace in which a file system was mounted may idmap it.
sub in_initial_namespace { open(my $map, "<", "/proc/self/uid_map") or return 1; return <$map> =~ /^\s*0\s+0\s+4294967295$/ }

sub user_namespace {
  my ($id, $count) = @_;
  my $number = $unshare{$machine} or die ["unshare", "", "no system call number for $machine"];
  pipe(my $said, my $say) or failed("pipe");
  pipe(my $until, my $hold) or failed("pipe");
  defined(my $pid = fork) or failed("fork");
  if (!$pid) {  # it ends when our end of the pipe closes, so it never outlives us
    close $said; close $hold; close $janitor if $janitor;
    syswrite $say, syscall($number, 0x10000000) == 0 ? "0" : $! + 0;
    close $say;
    sysread $until, my $end, 1;
    exit 0;
  }
  close $say; close $until;
  my $namespace;
  eval {
    sysread $said, my $number, 9;
    if ($number ne "0") {
      my $around = $number == 1 && around_login();
      $! = $number;
      failed($around ? "login" : "unshare", $around ? "$! ($around)" : "");
    }
    for ("uid_map", "gid_map") {
      open(my $map, ">", "/proc/$pid/$_") or failed($_);
      syswrite($map, "0 $id $count\n") or failed($_);
    }
    open($namespace, "<", "/proc/$pid/ns/user") or failed("namespace");
  };
  my $error = $@;
  close $hold;
  waitpid $pid, 0;
  die $error if $error;
  return $namespace;
}

# A file descriptor as a handle: it closes, and its detached mount ends, when the handle goes.
sub handle { my ($fd) = @_; open(my $handle, "<&=", $fd) or failed("descriptor"); return $handle }

sub detached {  # a clone of the mount at the directory, attached nowhere
  my ($directory) = @_;
  my $fd = syscall(428, -100, $directory, 1 | 0x80000);
  failed("open_tree") if $fd < 0;
  return handle($fd);
}

sub fresh {  # a new mount, attached nowhere
  my ($type, $flags, @options) = @_;
  my $fd = syscall(430, $type, 1);
  failed($type) if $fd < 0;
  my $context = handle($fd);
  push @options, "ro" if $flags & 1;
  for (@options) {
    my ($key, $value) = split /=/;
    syscall(431, $fd, defined $value ? 1 : 0, $key, defined $value ? $value : 0, 0) == 0 or failed($type, $key);
  }
  syscall(431, $fd, 6, 0, 0, 0) == 0 or failed($type);
  my $mount = syscall(432, $fd, 1, $flags);
  failed($type) if $mount < 0;
  return handle($mount);
}

sub idmap {
  my ($mount, $namespace, $flags) = @_;
  my $attributes = pack "Q4", 0x100000 | $flags, 0, 0, fileno $namespace;
  return if syscall(442, fileno $mount, my $here = "", 0x1000, $attributes, 32) == 0;
  my $number = $! + 0;
  my $step = $number != 1 || in_initial_namespace() ? "mount_setattr" : "user_namespace";
  $! = $number;
  failed($step);
}

sub owned {  # the kernel may say yes and not do it
  my ($path, $uid, $gid) = @_;
  my @state = stat $path or failed("stat");
  die ["owner", "-", "$state[4]:$state[5] instead of $uid:$gid"] if $state[4] != $uid || $state[5] != $gid;
}

my $shared;
sub idmapped {
  my ($mount) = @_;
  my $path = "/proc/self/fd/" . fileno $mount;
  my @plain = stat $path or failed("stat");
  $shared ||= user_namespace(65536, 65536);
  idmap($mount, $shared, 0);
  owned($path, map { $_ < 65536 ? $_ + 65536 : 65534 } @plain[4, 5]);
}

sub own_mounts {  # a mount namespace of our own, whose mounts nobody else sees
  return if $private;
  syscall($unshare{$machine}, 0x20000) == 0 or failed("mount namespace");
  my $attributes = pack "Q4", 0, 0, 1 << 18, 0;
  syscall(442, -100, my $root = "/", 0x8000, $attributes, 32) == 0 or failed("mount_setattr");
  $private = 1;
}

sub have_overlay {
  open(my $list, "<", "/proc/filesystems") or failed("/proc/filesystems");
  return if grep { /\toverlay$/ } <$list>;
  die ["overlay", "", "overlay is not loaded, and may not be loaded from here"] if $may_load ne "yes";
  print $janitor "module\0";
  system "modprobe", "-q", "overlay";
}

sub overlaid {
  my ($directory, $id, $count, $flags) = @_;
  my $namespace = user_namespace($id, $count);
  own_mounts();
  my $temporary = sprintf "%s/%s%d.%08x", $directory, $name_of_temporary, $$, rand 2**32;
  print $janitor "$temporary\0";
  mkdir $temporary, 0700 or failed("mkdir");
  chdir $temporary or failed("chdir");
  mkdir $_, 0755 or failed("mkdir") for "lower", "mapped", "upper", "work";
  open(my $file, ">", "lower/file") or failed("create");
  close $file;
  chown $id, $id, "upper" or failed("chown");
  my $lower = detached("lower");
  idmap($lower, $namespace, $flags);
  syscall(429, fileno $lower, my $here = "", -100, my $there = "mapped", 4) == 0 or failed("move_mount");
  have_overlay();
  my @options = -e "/sys/module/overlay/parameters/index" ? "index=off" : ();
  # The end of one that can be written to would else write out all that waits on the file system below, which can be
  # minutes. Linux 5.10 knows it, and none before comes so far.
  push @options, "volatile" if !($flags & 1);
  # Relative names: no character of the directory can be taken for a separator.
  my $mount = fresh("overlay", $flags, @options, "lowerdir=mapped", "upperdir=upper", "workdir=work");
  my $merged = "/proc/self/fd/" . fileno $mount;
  owned($merged, $id, $id);
  owned("$merged/file", $id, $id);
}

sub run {
  my ($kind, $directory) = @_;
  die ["perl", "", "perl is not a 64-bit program"] if length(pack "P", 0) != 8;
  return idmapped(fresh("tmpfs", 0)) if $kind eq "tmpfs";
  return idmapped(detached($directory)) if $kind eq "idmap";
  start_janitor() if !$janitor;
  sweep($directory);
  # containerd maps one ID to 666 and mounts read-only.
  return $kind eq "check" ? overlaid($directory, 666, 1, 1) : overlaid($directory, 65536, 65536, 0);
}

# Detached mounts first: making our own mount namespace may be forbidden where they are not.
my @jobs;
push @jobs, [splice @probes, 0, 3] while @probes >= 3;
for (sort { ($$a[0] =~ /overlay|check/) <=> ($$b[0] =~ /overlay|check/) } @jobs) {
  my ($kind, $name, $directory) = @$_;
  eval { run($kind, $directory); 1 } and answer($name, "ok", "", "", ""), next;
  my ($step, $errno, $detail) = ref $@ ? @{$@} : ("perl", "", "$@" =~ s/[^ -~]+/ /gr);
  my $answered = grep { $_ eq $errno } split / /, $answers{$step} || "";
  answer($name, $answered ? "cannot" : "unknown", $step, $errno eq "-" ? "" : $errno, $detail);
}
chdir "/";
if ($janitor) { close $janitor; waitpid $janitor_pid, 0 }
'

# Without perl: mount of util-linux 2.39 or later. Older ones take X-mount.idmap for a comment and succeed, so only
# the owner that stat shows counts. Runs in a mount namespace of its own: KIND NAME DIR TEMPORARY.
probe_mounts='
answer() { printf "probe\t%s\t%s\t%s\t%s\t%s\n" "$name" "$@"; exit 0; }
kind=$1 name=$2 directory=$3 temporary=$4
id=65536 count=65536 mode=rw

owner() {
    set -- $(stat -c "%u %g" "$1" || ls -ldn "$1" | { read -r _ _ user group _; echo "$user $group"; })
    owner=$1:$2
}

expected() {
    [ "${owner%:*}" -lt 65536 ] && [ "${owner#*:}" -lt 65536 ] || answer unknown owner "" "the owner of $directory is unknown or of a high ID"
    expected=$((${owner%:*} + id)):$((${owner#*:} + id))
}

refused() { # STEP OUTPUT
    text=$(printf %s "$2" | tr -c "\040-\176" " ")
    case $text in
    *"Function not implemented"*) errno=ENOSYS ;;
    *"Invalid argument"*) errno=EINVAL ;;
    *"Operation not permitted"*) errno=EPERM ;;
    *"not supported"*) errno=EOPNOTSUPP ;;
    *"No such device"* | *"unknown filesystem type"*) errno=ENODEV ;;
    *) errno= ;;
    esac
    case $1:$errno:$text in
    *"failed to parse"*) ;;
    *mount_setattr* | *"subsequent X-mount.idmap"*)
        read -r id place count </proc/self/uid_map # see in_initial_namespace
        case $errno:$id:$place:$count in
        *:0:0:4294967295) ;;
        :* | EPERM:*) answer cannot user_namespace EPERM "$text" ;;
        esac
        answer cannot mount_setattr "$errno" "$text"
        ;;
    overlay:?*:*) answer cannot overlay "$errno" "$text" ;;
    esac
    answer unknown "$1" "$errno" "$text"
}

idmap() { # FROM TO
    owner "$1"
    expected
    said=$(mount --bind -o "$mode,X-mount.idmap=b:0:$id:$count" "$1" "$2" 2>&1) || refused mount "$said"
    plain=$owner
    owner "$2"
    [ "$owner" != "$plain" ] || answer unknown mount "" "there is no perl, and this mount does not know X-mount.idmap"
    [ "$owner" = "$expected" ] || answer cannot owner "" "$owner instead of $expected"
}

case $kind in
tmpfs | idmap)
    [ "$kind" = idmap ] || mount -t tmpfs tmpfs "$directory" || answer unknown tmpfs "" "tmpfs cannot be mounted"
    idmap "$directory" "$directory"
    ;;
overlay | check)
    [ "$kind" = overlay ] || id=666 count=1 mode=ro
    mkdir -m 700 "$temporary" && cd "$temporary" && mkdir lower mapped upper work merged ||
        answer unknown mkdir "" "$directory cannot be written to"
    : >lower/file && chown "$id:$id" upper || answer unknown chown "" "$directory cannot be written to"
    idmap lower mapped
    options=$mode
    [ "$kind" = check ] || options=$options,volatile
    [ ! -e /sys/module/overlay/parameters/index ] || options=$options,index=off
    said=$(mount -t overlay -o "$options,lowerdir=mapped,upperdir=upper,workdir=work" overlay merged 2>&1) ||
        refused overlay "$said"
    for path in merged merged/file; do
        owner "$path"
        [ "$owner" = "$id:$id" ] || answer cannot owner "" "$owner instead of $id:$id"
    done
    ;;
esac
answer ok "" "" ""
'

have() { command -v "$1" >/dev/null 2>&1; }

# probe_by_mount LOAD KIND NAME DIR...: one pipe a question; its reader is the janitor, who outlives the asker
probe_by_mount() {
    probe_load=$1 probe_number=0
    shift
    while [ "$#" -ge 3 ]; do
        probe_number=$((probe_number + 1)) probe_unload=no
        probe_place=$3
        [ "$1" != tmpfs ] || probe_place=/sys # covered by a tmpfs that nobody else sees
        probe_temporary=$probe_place/.userns-node-probe.$$.$probe_number
        case $1 in
        overlay | check)
            find "$3" -xdev -maxdepth 1 -type d -user 0 -name ".userns-node-probe.*" -mmin +10 -exec rm -rf {} + 2>/dev/null
            if ! grep -q "[[:blank:]]overlay\$" /proc/filesystems 2>/dev/null; then
                if [ "$probe_load" != yes ]; then
                    probe_unknown overlay "overlay is not loaded, and may not be loaded from here" "$1" "$2" "$3"
                    shift 3
                    continue
                fi
                probe_unload=yes
            fi
            ;;
        esac
        (
            trap "" HUP INT TERM # from here on: the janitor is not to be ended before it gets to say so
            {
                trap - HUP INT TERM
                [ "$probe_unload" = no ] || modprobe -q overlay
                unshare -m --propagation private sh -c "$probe_mounts" probe "$1" "$2" "$probe_place" \
                    "$probe_temporary" 4>&1 >&3 2>/dev/null # it holds the pipe as 4, as long as any part of it lives
            } | {
                exec >/dev/null 2>&1 3>&1
                while read -r _; do :; done
                [ ! -d "$probe_temporary" ] || rm -rf "$probe_temporary"
                [ "$probe_unload" = no ] || [ ! -e /sys/module/overlay/initstate ] || modprobe -q -r overlay
            }
        ) 3>&1
        shift 3
    done
}

# probe_unknown STEP REASON KIND NAME DIR...: the same answer to every question
probe_unknown() {
    probe_step=$1 probe_reason=$2
    shift 2
    while [ "$#" -ge 3 ]; do
        printf "probe\t%s\tunknown\t%s\t\t%s\n" "$2" "$probe_step" "$probe_reason"
        shift 3
    done
}

probe() {
    if have perl; then
        perl -e "$probe_perl" "$@" 2>/dev/null
        # One that lacks its own library, crashes, or is no perl, has said nothing. One that was ended (by HUP, INT, KILL,
        # PIPE, ALRM or TERM) is not asked again.
        case $? in 0 | 129 | 130 | 137 | 141 | 142 | 143) return ;; esac
    fi
    shift
    if have mount && have unshare; then
        probe_by_mount "$@"
    else
        shift
        probe_unknown perl "there is no perl, and no mount of util-linux 2.39 or later" "$@"
    fi
}

case ${0##*/} in
probe.sh)
    [ "$#" -gt 0 ] || { echo "usage: sh probe.sh DIR..." >&2; exit 64; }
    probe_more=$#
    while [ "$probe_more" -gt 0 ]; do
        set -- "$@" idmap "$1" "$1" overlay "$1 overlay" "$1"
        shift
        probe_more=$((probe_more - 1))
    done
    probe "$(uname -m)" yes "$@" tmpfs tmpfs -
    ;;
esac
