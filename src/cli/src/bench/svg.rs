//! The picture: throughput and latency over time.
//!
//! Guarantees: one file that any browser shows, without scripts and fonts of its own. Leaves out:
//! everything but these two curves; the figures are in the JSON.

use std::fmt::{self, Write as _};

use super::figures::Moment;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
/// Top and height of the two charts.
const UPPER: Frame = Frame { top: 50.0, height: 210.0 };
const LOWER: Frame = Frame { top: 310.0, height: 210.0 };

/// A stretch of time that was measured.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    /// What was measured.
    pub(super) label: String,
    pub(super) course: Vec<Moment>,
    /// When a node was killed.
    pub(super) killed_at_ms: Option<u32>,
}

/// The picture of `panels`, side by side, whose courses have steps of `step_ms`.
pub(super) struct Picture<'a> {
    pub(super) panels: &'a [Panel],
    pub(super) step_ms: u32,
}

#[derive(Clone, Copy)]
struct Frame {
    top: f64,
    height: f64,
}

impl Frame {
    fn bottom(self) -> f64 {
        self.top + self.height
    }

    /// Height of a value from 0 to 1.
    fn at(self, part: f64) -> f64 {
        self.bottom() - part.clamp(0.0, 1.0) * self.height
    }
}

impl fmt::Display for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>"##
        )?;
        let moments = || self.panels.iter().flat_map(|panel| &panel.course);
        let most = moments().map(|moment| moment.pops_per_second).fold(1.0, f64::max);
        let most = round_up(most);
        let slowest = moments().map(|moment| moment.p99_us).max().unwrap_or(1).max(1000);
        let decades = f64::from(slowest).log10().ceil();
        let latency = |us: u32| (f64::from(us.max(100)).log10() - 2.0) / (decades - 2.0);

        self.panels(f)?;
        grid(
            f,
            UPPER,
            "pops per second",
            (0..=4).map(|line| {
                let part = f64::from(line) / 4.0;
                (part, format!("{:.0}", most * part))
            }),
        )?;
        grid(
            f,
            LOWER,
            "latency: p50 (blue), p99 (orange)",
            (2..).map(f64::from).take_while(|decade| *decade <= decades).map(|decade| {
                let text = format!("{} ms", 10f64.powf(decade - 3.0));
                ((decade - 2.0) / (decades - 2.0), text)
            }),
        )?;
        self.curve(f, UPPER, "#1a7f37", |moment| Some(moment.pops_per_second / most))?;
        self.curve(f, LOWER, "#d9730d", |moment| {
            (moment.p99_us > 0).then(|| latency(moment.p99_us))
        })?;
        self.curve(f, LOWER, "#0b6bcb", |moment| {
            (moment.p50_us > 0).then(|| latency(moment.p50_us))
        })?;
        writeln!(f, "</svg>")
    }
}

impl Picture<'_> {
    /// Width of one step.
    fn step(&self) -> f64 {
        let steps: usize = self.panels.iter().map(|panel| panel.course.len()).sum();
        (WIDTH - LEFT - RIGHT) / f64::from(u32::try_from(steps.max(1)).unwrap_or(u32::MAX))
    }

    /// Each panel with the place where it begins.
    fn placed(&self) -> impl Iterator<Item = (f64, &Panel)> {
        let step = self.step();
        self.panels.iter().scan(LEFT, move |x, panel| {
            let at = *x;
            *x += step * f64::from(u32::try_from(panel.course.len()).unwrap_or(u32::MAX));
            Some((at, panel))
        })
    }

    /// Borders, labels and kills.
    fn panels(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, x: f64, style: &str| {
            [UPPER, LOWER].iter().try_for_each(|frame| {
                let (top, bottom) = (frame.top, frame.bottom());
                writeln!(f, r#"<line x1="{x:.1}" x2="{x:.1}" y1="{top}" y2="{bottom}" {style}/>"#)
            })
        };
        let mut last = "";
        for (x, panel) in self.placed() {
            line(f, x, r##"stroke="#ddd""##)?;
            // Runs of one kind share a label.
            if panel.label != last {
                let (x, y) = (x + 3.0, UPPER.top - 8.0);
                writeln!(f, r#"<text x="{x:.1}" y="{y}">{}</text>"#, escaped(&panel.label))?;
                last = &panel.label;
            }
            if let Some(at) = panel.killed_at_ms {
                let x = x + self.step() * f64::from(at) / f64::from(self.step_ms);
                line(f, x, r##"stroke="#c00" stroke-dasharray="4 3""##)?;
            }
        }
        Ok(())
    }

    /// One curve in all panels; a moment without value breaks it.
    fn curve(
        &self,
        f: &mut fmt::Formatter<'_>,
        frame: Frame,
        colour: &str,
        value: impl Fn(&Moment) -> Option<f64>,
    ) -> fmt::Result {
        for (x, panel) in self.placed() {
            let mut path = String::new();
            let mut command = 'M';
            for (number, moment) in (0u32..).zip(&panel.course) {
                let Some(value) = value(moment) else {
                    command = 'M';
                    continue;
                };
                let x = x + (f64::from(number) + 0.5) * self.step();
                write!(path, "{command}{x:.1} {:.1}", frame.at(value))?;
                command = 'L';
            }
            writeln!(f, r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>"#)?;
        }
        Ok(())
    }
}

/// Title and horizontal lines of a chart.
fn grid(
    f: &mut fmt::Formatter<'_>,
    frame: Frame,
    title: &str,
    lines: impl Iterator<Item = (f64, String)>,
) -> fmt::Result {
    writeln!(f, r#"<text x="{LEFT}" y="{}" font-weight="bold">{title}</text>"#, frame.top - 26.0)?;
    for (part, text) in lines {
        let (y, right) = (frame.at(part), WIDTH - RIGHT);
        writeln!(
            f,
            r##"<line x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}" stroke="#eee"/><text x="{}" y="{:.1}" text-anchor="end">{text}</text>"##,
            LEFT - 6.0,
            y + 4.0
        )?;
    }
    Ok(())
}

/// The next number of the form 1, 2, 4, 5 or 8 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let factor = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].into_iter().find(|factor| factor * power >= value);
    factor.unwrap_or(10.0) * power
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_every_curve_of_every_panel_and_the_kill() {
        let moment = |at_ms, pops_per_second, p50_us| Moment {
            at_ms,
            pops_per_second,
            p50_us,
            p99_us: 2 * p50_us,
        };
        let course = vec![moment(0, 900.0, 400), moment(100, 0.0, 0), moment(200, 1000.0, 300)];
        let panel = |label: &str, killed_at_ms| Panel {
            label: label.to_owned(),
            course: course.clone(),
            killed_at_ms,
        };
        let panels = [panel("1 < 2", None), panel("1 < 2", None), panel("kill", Some(100))];
        let picture = Picture { panels: &panels, step_ms: 100 }.to_string();
        assert_eq!(picture.matches("<path").count(), 9, "{picture}");
        assert_eq!(picture.matches("1 &lt; 2</text>").count(), 1, "{picture}");
        assert_eq!(picture.matches("stroke-dasharray").count(), 2, "{picture}");
        // Nothing was answered in the moment in the middle, which breaks the latency curves.
        assert_eq!(picture.matches('M').count() - picture.matches("<path").count(), 6, "{picture}");
        assert!(picture.trim_end().ends_with("</svg>"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }

    #[test]
    fn a_picture_of_nothing_is_a_picture() {
        let picture = Picture { panels: &[], step_ms: 100 }.to_string();
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (value, end) in [(1.0, 1.0), (1.1, 2.0), (37_500.0, 40_000.0), (900.0, 1000.0)] {
            assert!((round_up(value) - end).abs() < 1e-6, "{value} gave {}", round_up(value));
        }
    }
}
