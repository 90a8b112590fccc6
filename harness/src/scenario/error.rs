//! A mistake in a scenario: file, line, column, the offending text, the remedy.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// Everything wrong with one scenario file; the first mistake is the error, others are related to it.
#[derive(Clone, Debug)]
pub struct ScenarioError {
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: Option<String>,
    file: Box<str>,
    source: Option<Arc<NamedSource<String>>>,
    span: Option<Range<usize>>,
    more: Vec<ScenarioError>,
}

impl ScenarioError {
    /// A mistake that has no place in a file, such as an unknown scenario.
    pub(super) fn without_source(file: &str, problem: String, remedy: Option<String>) -> Self {
        Self { problem, remedy, file: file.into(), source: None, span: None, more: Vec::new() }
    }

    /// Line and column of the mistake, counted from 1.
    #[must_use]
    pub fn position(&self) -> Option<(usize, usize)> {
        let (source, span) = (self.source.as_ref()?, self.span.as_ref()?);
        let before = source.inner().get(..span.start)?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Some((before.matches('\n').count() + 1, before[line_start..].chars().count() + 1))
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position() {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for ScenarioError {}

impl Diagnostic for ScenarioError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.remedy.as_ref().map(|remedy| Box::new(remedy) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| &**source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        let label = LabeledSpan::new(Some("here".to_owned()), span.start, span.len().max(1));
        Some(Box::new(std::iter::once(label)))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        if self.more.is_empty() {
            return None;
        }
        Some(Box::new(self.more.iter().map(|error| error as &dyn Diagnostic)))
    }
}

/// Mistakes of one file while it is being read.
pub(super) struct Mistakes {
    file: Box<str>,
    source: Arc<NamedSource<String>>,
    found: Vec<ScenarioError>,
}

impl Mistakes {
    pub(super) fn new(file: &str, text: &str) -> Self {
        let source = NamedSource::new(file, text.to_owned()).with_language("toml");
        Self { file: file.into(), source: Arc::new(source), found: Vec::new() }
    }

    /// Records a mistake at `span`.
    pub(super) fn add(
        &mut self,
        span: Range<usize>,
        problem: impl Into<String>,
        remedy: impl Into<Option<String>>,
    ) {
        self.found.push(ScenarioError {
            problem: problem.into(),
            remedy: remedy.into(),
            file: self.file.clone(),
            source: Some(Arc::clone(&self.source)),
            span: Some(span),
            more: Vec::new(),
        });
    }

    /// The mistakes as one error, first in the file first; `None` if there are none.
    pub(super) fn into_error(mut self) -> Option<ScenarioError> {
        self.found.sort_by_key(|error| error.span.as_ref().map(|span| span.start));
        let mut found = self.found.into_iter();
        let mut first = found.next()?;
        first.more = found.collect();
        Some(first)
    }
}
