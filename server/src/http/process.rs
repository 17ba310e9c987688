//! What the operating system tells about this process, under the names every Prometheus client library uses.

use std::fs;

use super::metrics::Page;

/// Ticks of the kernel's clock in a second, as Linux reports process times on every architecture.
const CLOCK_TICKS: f64 = 100.0;

/// Adds the process's metrics. What cannot be read is left out.
pub(super) fn expose(page: &mut Page) {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit_of = |name: &str| limit_of(&limits, name);
    if let Some(open) = fs::read_dir("/proc/self/fd").ok().map(Iterator::count) {
        page.gauge("process_open_fds", "Number of open file descriptors", open as f64);
        page.gauge("os_fd_used", "The number of used file descriptors", open as f64);
    }
    if let Some(limit) = limit_of("Max open files") {
        page.gauge("process_max_fds", "Maximum number of open file descriptors", limit);
        page.gauge("os_fd_limit", "The file descriptor limit", limit);
    }
    if let Some((received, sent)) = fs::read_to_string("/proc/self/net/netstat").ok().and_then(|text| ip_octets(&text))
    {
        let help = "Number of bytes received by the process's network namespace";
        page.counter("process_network_receive_bytes_total", help, received);
        let help = "Number of bytes sent by the process's network namespace";
        page.counter("process_network_transmit_bytes_total", help, sent);
    }
    let memory_max = limit_of("Max address space").unwrap_or(u64::MAX as f64);
    page.gauge("process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes", memory_max);
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text)) {
        page.counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds", stat.cpu_seconds);
        page.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes", stat.virtual_bytes);
        page.gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes",
            stat.resident_pages * rustix::param::page_size() as f64,
        );
        page.gauge("go_threads", "Number of threads of the operating system", stat.threads);
        let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
        if let Some(boot) = boot {
            page.gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds",
                boot + stat.start_seconds,
            );
        }
    }
}

/// The soft limit of this name in the text of `/proc/self/limits`; none if it is unlimited or not there.
pub(super) fn limit_of(limits: &str, name: &str) -> Option<f64> {
    let line = limits.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}

/// Adds what the runtime tells, under the names of Go's that mean the same here. Called by one of its tasks.
pub(super) fn expose_runtime(page: &mut Page) {
    let runtime = tokio::runtime::Handle::current().metrics();
    page.gauge("go_goroutines", "Number of tasks that currently exist", runtime.num_alive_tasks() as f64);
    page.gauge("go_sched_gomaxprocs_threads", "Number of threads that run tasks", runtime.num_workers() as f64);
}

/// Bytes received and sent by IP, in the network namespace of this process, of `/proc/self/net/netstat`.
fn ip_octets(text: &str) -> Option<(f64, f64)> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        pairs.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some((value("InOctets")?, value("OutOctets")?))
}

/// What is needed of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    /// Since the system's start.
    start_seconds: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, in which anything may stand.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // `fields[0]` is field 3 of proc(5).
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / CLOCK_TICKS,
            threads: field(20)?,
            start_seconds: field(22)? / CLOCK_TICKS,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_times_are_read_past_any_program_name() {
        let text =
            "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 12345 104857600 2560 18446744073709551615 1 1";
        let expected = Stat {
            cpu_seconds: 3.0,
            threads: 9.0,
            start_seconds: 123.45,
            virtual_bytes: 104_857_600.0,
            resident_pages: 2560.0,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (a"), None);
    }

    #[test]
    fn bytes_of_the_network_are_found_by_name() {
        let text = "TcpExt: InOctets Other\nTcpExt: 9 9\nIpExt: InMcastPkts InOctets OutOctets\nIpExt: 1 20 300\n";
        assert_eq!(ip_octets(text), Some((20.0, 300.0)));
        assert_eq!(ip_octets("IpExt: InOctets OutOctets\nIpExt: 1\n"), None);
        assert_eq!(ip_octets(""), None);
    }
}
