//! The machine: its clock and its pages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::finding::Finding;
use crate::transport::tls;

/// When this was written, in seconds since 1970: no clock that is right shows less (2026-11-01).
const WRITTEN: u64 = 1_793_491_200;
/// Files carry the time of the machine that made them: as much as two clocks may differ.
const SLACK: Duration = Duration::from_secs(24 * 3600);

pub(super) fn check() -> Vec<Finding> {
    // Of the file: one that was built, copied or unpacked when this clock says is yet to come.
    let built = std::env::current_exe().and_then(|exe| exe.metadata()?.modified()).ok();
    let now = SystemTime::now();
    vec![clock(now, built, &tls::check_clock()), pages(rustix::param::page_size())]
}

fn clock(now: SystemTime, built: Option<SystemTime>, certificate: &Result<(), String>) -> Finding {
    let (check, subject) = ("host.clock", "clock");
    let shown = utc(now);
    let mend = "set it, and keep it right with NTP (a Raspberry Pi has no clock that runs without power)";
    let written = UNIX_EPOCH + Duration::from_secs(WRITTEN);
    let earliest = built.and_then(|built| built.checked_sub(SLACK)).map_or(written, |b| b.max(written));
    match certificate {
        Err(why) => Finding::fail(
            check,
            subject,
            format!("{shown}: a certificate of libp2p does not hold at this time: {why}"),
            mend,
        ),
        Ok(()) if now < earliest => {
            let found = format!(
                "{shown}, yet this program is from {}: certificates of others may not hold",
                utc(earliest)
            );
            Finding::fail(check, subject, found, mend)
        }
        Ok(()) => Finding::ok(check, subject, format!("{shown}, certificates hold")),
    }
}

fn pages(bytes: usize) -> Finding {
    let (check, subject) = ("host.page_size", "page size");
    let found = format!("{bytes} bytes");
    match bytes {
        4096 => Finding::ok(check, subject, found),
        8192 | 16384 | 65536 => Finding::ok(check, subject, format!("{found}: fine for this program")),
        _ => Finding::warn(check, subject, format!("{found}: never seen"), "report how smidge runs there"),
    }
}

/// `2026-11-21 13:20:00 UTC`.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut days, rest) = (seconds / 86400, seconds % 86400);
    // Years of 400 repeat. From March on, a leap day is the last of its year.
    days += 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) =
        if month < 10 { (era * 400 + year, month + 3) } else { (era * 400 + year + 1, month - 9) };
    let [hour, minute, second] = [rest / 3600, rest / 60 % 60, rest % 60];
    format!("{year:04}-{month:02}-{of_month:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_may_not_show_less_than_when_this_was_made() {
        let day = 24 * 3600;
        let (good, bad) = (Ok(()), Err("CertNotValidYet".to_owned()));
        for (now, built, certificate, expected) in [
            (WRITTEN, None, &good, Verdict::Ok),
            (WRITTEN - 1, None, &good, Verdict::Fail),
            (0, None, &bad, Verdict::Fail),
            (WRITTEN + 9 * day, Some(WRITTEN + 9 * day), &good, Verdict::Ok),
            (WRITTEN + 9 * day, Some(WRITTEN + 10 * day), &good, Verdict::Ok),
            (WRITTEN + 9 * day, Some(WRITTEN + 11 * day), &good, Verdict::Fail),
            // A file without a time of its own, as some images have them.
            (WRITTEN + 9 * day, Some(0), &good, Verdict::Ok),
            (WRITTEN + 9 * day, None, &bad, Verdict::Fail),
        ] {
            let finding = clock(at(now), built.map(at), certificate);
            assert_eq!(finding.verdict, expected, "{now} {built:?} {finding:?}");
            assert_eq!(finding.advice.is_none(), expected == Verdict::Ok);
        }
    }

    #[test]
    fn a_certificate_made_now_holds_now() {
        assert_eq!(tls::check_clock(), Ok(()));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_793_491_200, "2026-11-01 00:00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(at(seconds)), expected, "{seconds}");
        }
    }

    #[test]
    fn pages_of_a_pi_5_are_fine() {
        let verdicts = [4096, 16384, 12345].map(|bytes| pages(bytes).verdict);
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Ok, Verdict::Warn]);
    }
}
