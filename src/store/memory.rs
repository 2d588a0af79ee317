//! How much memory things take, and how much there is.

use std::path::Path;

/// What the store takes at least where nothing is configured, in bytes.
const LEAST_CACHE_BYTES: u64 = 256 * 1024 * 1024;

/// The bytes that an allocation of `bytes` takes: allocators hand out sizes of a few classes. These are
/// those of mimalloc: steps of 16, above 64 four for each doubling.
pub fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=64 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(bytes.next_power_of_two() >> 3),
    }
}

/// How much memory the entities of a store may take where nothing is configured: a quarter of what this
/// process may use, at least 256 MiB.
pub fn default_cache_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let machine = read("/proc/meminfo").and_then(|text| total_of(&text));
    let cgroups = read("/proc/self/cgroup").unwrap_or_default();
    quarter(machine, limit_of(&cgroups, Path::new("/sys/fs/cgroup")))
}

/// The limit on a process with these control groups, which are in folders below `mounted`: of version 2,
/// of version 1, or the lower one of both.
fn limit_of(cgroups: &str, mounted: &Path) -> Option<u64> {
    let second = cgroup_of(cgroups).and_then(|cgroup| least_limit(mounted, &cgroup, "memory.max"));
    let first = memory_cgroup_of(cgroups)
        .and_then(|cgroup| least_limit(&mounted.join("memory"), &cgroup, "memory.limit_in_bytes"));
    second.into_iter().chain(first).min()
}

/// A quarter of the lesser of what the machine has and what the process is limited to.
fn quarter(machine: Option<u64>, limit: Option<u64>) -> u64 {
    let usable = machine.into_iter().chain(limit).min();
    usable.map_or(LEAST_CACHE_BYTES, |usable| {
        (usable / 4).max(LEAST_CACHE_BYTES)
    })
}

/// The memory of the machine, from `/proc/meminfo`.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The control group of a process (version 2), from `/proc/self/cgroup`.
fn cgroup_of(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.trim_start_matches('/').to_owned())
}

/// The control group of a process for memory (version 1), from `/proc/self/cgroup`.
fn memory_cgroup_of(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers
            .split(',')
            .any(|name| name == "memory")
            .then_some(path)
    })?;
    Some(path.trim_start_matches('/').to_owned())
}

/// The lowest limit of a control group and those it is in, below `root`, in files of that name.
fn least_limit(root: &Path, cgroup: &str, file: &str) -> Option<u64> {
    let own = root.join(cgroup);
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    let limit = |group: &Path| {
        let text = std::fs::read_to_string(group.join(file)).ok()?;
        // "max" is none.
        text.trim().parse::<u64>().ok()
    };
    groups.filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn sizes_are_rounded_up_to_classes_and_never_down() {
        for (bytes, expected) in [(0, 0), (1, 8), (9, 16), (64, 64), (65, 80), (128, 128)] {
            assert_eq!(allocated(bytes), expected);
        }
        assert_eq!(
            [allocated(129), allocated(256), allocated(257)],
            [160, 256, 320]
        );
        for bytes in 1..10_000 {
            let taken = allocated(bytes);
            assert!(
                taken >= bytes && taken <= bytes + bytes / 4 + 16,
                "{bytes}: {taken}"
            );
        }
    }

    #[test]
    fn a_quarter_of_the_lesser_of_machine_and_limit_but_not_too_little() {
        assert_eq!(quarter(Some(16 * GIB), None), 4 * GIB);
        assert_eq!(quarter(Some(16 * GIB), Some(4 * GIB)), GIB);
        assert_eq!(quarter(Some(2 * GIB), Some(64 * GIB)), GIB / 2);
        assert_eq!(quarter(Some(GIB / 4), None), GIB / 4);
        assert_eq!(quarter(None, None), GIB / 4);
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        let meminfo = "MemTotal:       24689764 kB\nMemFree:        1 kB\n";
        assert_eq!(total_of(meminfo), Some(24_689_764 * 1024));
        for other in ["", "MemTotal:", "MemTotal: many kB", "MemTotal: 5 MB"] {
            assert_eq!(total_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_lowest_limit_on_the_way_to_the_root_holds() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("system/bellwether");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(
            least_limit(root.path(), "system/bellwether", "memory.max"),
            None
        );
        std::fs::write(root.path().join("system/memory.max"), "3000\n").unwrap();
        assert_eq!(
            least_limit(root.path(), "system/bellwether", "memory.max"),
            Some(3000)
        );
        std::fs::write(inner.join("memory.max"), "2000\n").unwrap();
        assert_eq!(
            least_limit(root.path(), "system/bellwether", "memory.max"),
            Some(2000)
        );
        assert_eq!(
            cgroup_of("0::/system/bellwether\n").unwrap(),
            "system/bellwether"
        );
        // In a container of its own.
        assert_eq!(cgroup_of("0::/\n").unwrap(), "");
        assert_eq!(cgroup_of("3:memory:/old\n"), None);
        let first = "5:cpu,cpuacct:/a\n4:memory:/docker/b\n0::/\n";
        assert_eq!(memory_cgroup_of(first).unwrap(), "docker/b");
        assert_eq!(memory_cgroup_of("0::/\n"), None);
    }
    #[test]
    fn limits_of_both_versions_hold_and_the_lower_one_counts() {
        let mounted = tempfile::tempdir().unwrap();
        let set = |file: &str, text: &str| {
            let file = mounted.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        let limit = |cgroups: &str| limit_of(cgroups, mounted.path());
        let first = "5:cpu,cpuacct:/a\n4:memory:/docker/b\n1:name=systemd:/c\n";
        assert_eq!(limit(first), None);
        // Version 1 writes a number that no machine has where there is no limit.
        set("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(quarter(Some(16 * GIB), limit(first)), 4 * GIB);
        set("memory/docker/b/memory.limit_in_bytes", "3000\n");
        assert_eq!(limit(first), Some(3000));
        // A container sees the name that its group has outside, and its limit at the root.
        set("memory/memory.limit_in_bytes", "4000\n");
        assert_eq!(limit("4:memory:/kubepods/pod1/c2\n"), Some(4000));
        // Both versions at once.
        let both = format!("{first}0::/system\n");
        set("system/memory.max", "2000\n");
        assert_eq!(limit(&both), Some(2000));
        set("system/memory.max", "max\n");
        assert_eq!(limit(&both), Some(3000));
    }
}
