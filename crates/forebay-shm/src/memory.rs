//! How much memory this process may still take: the smaller of what the machine and its control groups leave.

use std::fs;
use std::path::{Path, PathBuf};

const GROUPS_ROOT: &str = "/sys/fs/cgroup";

/// Memory that can still be taken, and who limits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// Bytes.
    pub bytes: u64,
    /// For messages.
    pub limited_by: &'static str,
}

/// Memory this process can still take, or `None` where the operating system does not say.
pub fn available() -> Option<Available> {
    let machine =
        machine_field("MemAvailable:").map(|bytes| Available { bytes, limited_by: "the machine's memory" });
    let group = group_left().map(|bytes| Available { bytes, limited_by: "the control group's limit" });
    machine.into_iter().chain(group).min_by_key(|available| available.bytes)
}

/// All memory this process could ever use: the machine's, or its control group's limit.
pub fn total() -> Option<u64> {
    let group = own_groups().into_iter().filter_map(|group| number(&group.join("memory.max"))).min();
    machine_field("MemTotal:").into_iter().chain(group).min()
}

fn machine_field(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn group_left() -> Option<u64> {
    own_groups().iter().filter_map(|group| left_in(group)).min()
}

/// What one control group leaves: page cache that nobody uses counts as free, the kernel drops it first.
fn left_in(group: &Path) -> Option<u64> {
    let limit = number(&group.join("memory.max"))?;
    let used = number(&group.join("memory.current"))?;
    let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let reclaimable =
        statistics.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
    Some(limit.saturating_sub(used.saturating_sub(reclaimable.unwrap_or(0))))
}

/// This process's control group (version 2) and all groups above it.
fn own_groups() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let own = Path::new(GROUPS_ROOT).join(own.trim());
    own.ancestors().take_while(|path| path.starts_with(GROUPS_ROOT)).map(Path::to_path_buf).collect()
}

/// The number in a one-line file; "max" and absence are no number.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_how_much_memory_is_left_and_it_is_not_more_than_all() {
        let available = available().expect("Linux says");
        assert!(available.bytes > 0);
        assert!(available.bytes <= total().expect("Linux says"));
    }
}
