//! What the system says of this process.

use std::fs;

/// Memory in use, in bytes; `None` where the system does not say.
#[must_use]
pub fn resident_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Open file descriptors; `None` where the system does not say.
#[must_use]
pub fn open_fds() -> Option<u64> {
    // The listing itself has one open.
    let n = fs::read_dir("/proc/self/fd").ok()?.count().checked_sub(1)?;
    u64::try_from(n).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_how_much_there_is() {
        assert!(resident_memory_bytes().unwrap() > 1 << 20);
        assert!(open_fds().unwrap() >= 3);
    }
}
