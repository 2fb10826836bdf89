package otelclerkinvite_test

import (
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"

	"github.com/clerkinvite/clerkinvite"
)

// table has the rows of a table, without its header.
type table [][]string

// readText returns a text of this repository.
func readText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name) // #nosec G304 -- a file of this repository
	require.NoError(t, err)
	return string(text)
}

// docTable returns the table in the package documentation whose header begins with a word.
func docTable(t *testing.T, header string) table {
	t.Helper()
	var rows table
	for line := range strings.Lines(readText(t, "doc.go")) {
		cells := regexp.MustCompile(` {2,}`).Split(strings.TrimSpace(strings.TrimPrefix(line, "//\t")), -1)
		switch {
		case rows == nil && cells[0] == header && len(cells) > 1:
			rows = table{}
		case rows != nil && !strings.HasPrefix(line, "//\t"):
			return rows
		case rows != nil:
			rows = append(rows, cells)
		}
	}
	require.Failf(t, "not documented", "the table of the %s", header)
	return nil
}

// row returns the row that begins with a word.
func (rows table) row(t *testing.T, first string) []string {
	t.Helper()
	for _, row := range rows {
		if row[0] == first {
			return row
		}
	}
	require.Failf(t, "not documented", first)
	return nil
}

// list splits a cell at its commas.
func list(cell string) []string { return strings.Split(cell, ", ") }

// metricRow is a row of the table of metrics in the package documentation.
type metricRow struct {
	name   string
	labels []string
}

// kind returns the type that the name stands for.
func (m metricRow) kind() string {
	switch {
	case strings.HasSuffix(m.name, "_total"):
		return "COUNTER"
	case strings.HasSuffix(m.name, "_duration_seconds"):
		return "HISTOGRAM"
	}
	return "GAUGE"
}

func metrics(t *testing.T) (all []metricRow) {
	t.Helper()
	for _, row := range docTable(t, "metric") {
		labels := list(row[1])
		if row[1] == "none" {
			labels = nil
		}
		all = append(all, metricRow{row[0], labels})
	}
	require.NotEmpty(t, all)
	return all
}

// verbs returns the methods of Service that are observed under their own name.
func verbs() (names []string) {
	service := reflect.TypeFor[*clerkinvite.Service]()
	for i := range service.NumMethod() {
		if name := service.Method(i).Name; !slices.Contains([]string{"All", "Run", "InTx", "WebhookHandler", "Format"}, name) {
			names = append(names, name)
		}
	}
	return names
}

// values returns the documented values of a metric's label, or nil for numbers.
func values(t *testing.T, metric, label string) []string {
	t.Helper()
	switch label {
	case "http_response_status_code":
		return nil
	case "clerkinvite_verb":
		return verbs()
	case "clerkinvite_outcome":
		of := map[string]string{
			"clerkinvite_verb_duration_seconds": "verb", "clerkinvite_clerk_request_duration_seconds": "request",
			"clerkinvite_rate_limit_wait_duration_seconds": "wait",
		}[metric]
		var outcomes []string
		for _, row := range docTable(t, "outcome") {
			if slices.Contains(list(row[1]), of) {
				outcomes = append(outcomes, row[0])
			}
		}
		return outcomes
	}
	return list(docTable(t, "attribute").row(t, strings.ReplaceAll(label, "_", "."))[1])
}

// labelsOf returns the values of a family's labels, without the exporter's labels.
func labelsOf(f *dto.MetricFamily) map[string][]string {
	out := make(map[string][]string)
	for _, sample := range f.GetMetric() {
		for _, pair := range sample.GetLabel() {
			name := pair.GetName()
			if !strings.HasPrefix(name, "otel_scope_") && !slices.Contains(out[name], pair.GetValue()) {
				out[name] = append(out[name], pair.GetValue())
			}
		}
	}
	return out
}

func TestScrapeMatchesDocumentation(t *testing.T) {
	t.Parallel()
	r := newLifeRig(t)
	stop, err := r.Watch(r.store)
	require.NoError(t, err)
	live(t, r)
	families, documented := r.scrape(t), metrics(t)

	for _, m := range documented {
		family := families[m.name]
		require.NotNil(t, family, "%s is documented but not scraped", m.name)
		require.Equal(t, m.kind(), family.GetType().String(), m.name)
		require.NotEmpty(t, family.GetMetric(), "%s has no sample", m.name)
		seen := labelsOf(family)
		require.ElementsMatch(t, m.labels, slices.Collect(maps.Keys(seen)), "labels of %s", m.name)
		for _, label := range m.labels {
			if want := values(t, m.name, label); want != nil {
				require.ElementsMatch(t, want, seen[label], "values of %s of %s", label, m.name)
				continue
			}
			for _, value := range seen[label] {
				require.Regexp(t, `^[1-5]\d\d$`, value, "values of %s of %s", label, m.name)
			}
		}
		if m.kind() == "HISTOGRAM" {
			for _, sample := range family.GetMetric() {
				require.Positive(t, sample.GetHistogram().GetSampleCount())
			}
		}
	}
	for name := range families {
		if strings.HasPrefix(name, "clerkinvite_") {
			require.True(t, slices.ContainsFunc(documented, func(m metricRow) bool { return m.name == name }), "%s is scraped but not documented", name)
		}
	}

	// The values are right, too.
	backlog, err := r.store.Backlog(t.Context(), r.clock.Now())
	require.NoError(t, err)
	require.Positive(t, backlog.Reserved)
	require.InDelta(t, backlog.Reserved, families["clerkinvite_members_reserved"].GetMetric()[0].GetGauge().GetValue(), 0)
	require.NoError(t, stop())
	require.NotContains(t, r.scrape(t), "clerkinvite_members_reserved")
}

func TestSpansMatchDocumentation(t *testing.T) {
	t.Parallel()
	r := newLifeRig(t)
	live(t, r)

	type kind struct{ name, kind string }
	expected := make(map[kind][]string)
	for _, row := range docTable(t, "span") {
		expand := []string{""}
		switch {
		case strings.Contains(row[0], "<verb>"):
			expand = verbs()
		case strings.Contains(row[0], "<operation>"):
			expand = list(docTable(t, "attribute").row(t, "clerkinvite.operation")[1])
		}
		for _, word := range expand {
			expected[kind{regexp.MustCompile("<.*>").ReplaceAllString(row[0], word), row[1]}] = list(row[2])
		}
	}
	_, after, found := strings.Cut(readText(t, "doc.go"), "can also have these")
	require.True(t, found)
	more := list(regexp.MustCompile(`(?m)^//\t(.*)$`).FindStringSubmatch(after)[1])
	outcomes := docTable(t, "outcome")
	seen, seenMore := make(map[kind]bool), make(map[string]bool)
	for _, span := range r.spans.GetSpans() {
		k := kind{span.Name, span.SpanKind.String()}
		require.Contains(t, expected, k)
		seen[k] = true
		attrs := make(map[string]string)
		for _, a := range span.Attributes {
			attrs[string(a.Key)] = a.Value.String()
			if !slices.Contains(expected[k], string(a.Key)) {
				require.Contains(t, more, string(a.Key))
				seenMore[string(a.Key)] = true
			}
		}
		for _, key := range expected[k] {
			require.NotEmpty(t, attrs[key], "%s of %s", key, span.Name)
		}
		outcome := outcomes.row(t, attrs["clerkinvite.outcome"])
		require.Equal(t, outcome[2], span.Status.Code.String(), "%s, %s", span.Name, outcome[0])
		if span.Status.Code == codes.Error {
			require.NotEmpty(t, attrs["error.type"])
			require.NotEmpty(t, span.Status.Description)
		}
		require.Empty(t, span.Events)
	}
	require.Len(t, seen, len(expected))
	require.ElementsMatch(t, more, slices.Collect(maps.Keys(seenMore)))
}

// The alerts use names that exist, and the runbook says what to do for each alert.
func TestAlerts(t *testing.T) {
	t.Parallel()
	alerts, runbook := readText(t, "alerts.yaml"), readText(t, "../docs/runbook.md")
	names := []string{"http_response_status_code"}
	for _, m := range metrics(t) {
		names = append(append(names, m.labels...), m.name, m.name+"_count", m.name+"_bucket")
	}
	for _, name := range regexp.MustCompile(`\bclerkinvite_\w+`).FindAllString(alerts, -1) {
		require.Contains(t, names, name, "in an alert")
	}
	var defined, explained []string
	for _, match := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(alerts, -1) {
		defined = append(defined, match[1])
	}
	for _, match := range regexp.MustCompile("alert `(\\w+)`").FindAllStringSubmatch(runbook, -1) {
		explained = append(explained, match[1])
	}
	require.NotEmpty(t, defined)
	require.ElementsMatch(t, defined, explained)
}
