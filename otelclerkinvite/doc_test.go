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

	"github.com/clerkinvite/clerkinvite"
)

// page is docs/metrics.md.
type page struct {
	text   string
	tables map[string][][]string // rows, by the name of the first column
}

func readPage(t *testing.T) *page {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	require.NoError(t, err)
	p := &page{string(text), make(map[string][][]string)}
	var name string
	for line := range strings.Lines(p.text) {
		line, isRow := strings.CutPrefix(strings.TrimSpace(line), "|")
		cells := strings.Split(strings.TrimSuffix(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case !isRow:
			name = ""
		case name == "":
			name = cells[0]
			require.NotContains(t, p.tables, name, "two tables begin with the same column")
		case cells[0] != "-":
			p.tables[name] = append(p.tables[name], cells)
		}
	}
	return p
}

// words returns the backquoted words of a cell.
func words(cell string) []string {
	var out []string
	for _, m := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}

// documented is a row of the table of metrics.
type documented struct {
	name, prometheus, kind string
	labels                 []string
}

func (p *page) metrics() []documented {
	label := make(map[string]string)
	for _, row := range p.tables["attribute"] {
		label[words(row[0])[0]] = words(row[1])[0]
	}
	var out []documented
	for _, row := range p.tables["OpenTelemetry"] {
		m := documented{name: words(row[0])[0], prometheus: words(row[1])[0], kind: row[2]}
		for _, attribute := range words(row[4]) {
			m.labels = append(m.labels, label[attribute])
		}
		out = append(out, m)
	}
	return out
}

// values returns the documented values of a metric's label, or nil for numbers.
func (p *page) values(t *testing.T, metric, label string) []string {
	t.Helper()
	for _, row := range p.tables["attribute"] {
		if words(row[1])[0] == label && slices.Contains(words(row[2]), metric) {
			return words(row[3])
		}
	}
	require.Failf(t, "not documented", "the values of %s of %s", label, metric)
	return nil
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
	families, p := r.scrape(t), readPage(t)

	for _, m := range p.metrics() {
		family := families[m.prometheus]
		require.NotNil(t, family, "%s is documented but not scraped", m.prometheus)
		require.Equal(t, strings.ToUpper(m.kind), family.GetType().String(), m.prometheus)
		require.NotEmpty(t, family.GetMetric(), "%s has no sample", m.prometheus)
		seen := labelsOf(family)
		require.ElementsMatch(t, m.labels, slices.Collect(maps.Keys(seen)), "labels of %s", m.prometheus)
		for _, label := range m.labels {
			if values := p.values(t, m.name, label); values != nil {
				require.ElementsMatch(t, values, seen[label], "values of %s of %s", label, m.prometheus)
				continue
			}
			for _, value := range seen[label] {
				require.Regexp(t, `^[1-5]\d\d$`, value, "values of %s of %s", label, m.prometheus)
			}
		}
		if m.kind == "histogram" {
			for _, sample := range family.GetMetric() {
				require.Positive(t, sample.GetHistogram().GetSampleCount())
			}
		}
	}
	for name := range families {
		if strings.HasPrefix(name, "clerkinvite_") {
			require.True(t, slices.ContainsFunc(p.metrics(), func(m documented) bool { return m.prometheus == name }), "%s is scraped but not documented", name)
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
	p := readPage(t)

	type kind struct{ name, kind string }
	expected := make(map[kind][]string)
	for _, row := range p.tables["span"] {
		name := words(row[0])[0]
		expand := []string{""}
		switch {
		case strings.Contains(name, "<verb>"):
			expand = p.values(t, "clerkinvite.verb.duration", "clerkinvite_verb")
		case strings.Contains(name, "<operation>"):
			expand = p.values(t, "clerkinvite.clerk.request.duration", "clerkinvite_operation")
		}
		for _, word := range expand {
			expected[kind{regexp.MustCompile("<.*>").ReplaceAllString(name, word), row[1]}] = words(row[2])
		}
	}
	var more []string
	for _, row := range p.tables["span attribute"] {
		more = append(more, words(row[0])...)
	}
	isError := make(map[string]string)
	for _, table := range []string{"verb outcome", "request outcome"} {
		for _, row := range p.tables[table] {
			isError[table+words(row[0])[0]] = row[1]
		}
	}
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
		table := "verb outcome"
		if k.kind == "client" {
			table = "request outcome"
		}
		failed := "no"
		if span.Status.Code.String() == "Error" {
			failed = "yes"
			require.NotEmpty(t, attrs["error.type"])
			require.NotEmpty(t, span.Status.Description)
		}
		require.Equal(t, isError[table+attrs["clerkinvite.outcome"]], failed, "%s, %s", span.Name, attrs["clerkinvite.outcome"])
		require.Empty(t, span.Events)
	}
	require.Len(t, seen, len(expected))
	require.ElementsMatch(t, more, slices.Collect(maps.Keys(seenMore)))
}

func TestPageIsConsistent(t *testing.T) {
	t.Parallel()
	p := readPage(t)
	for table, metric := range map[string]string{"verb outcome": "clerkinvite.verb.duration", "request outcome": "clerkinvite.clerk.request.duration"} {
		var explained []string
		for _, row := range p.tables[table] {
			explained = append(explained, words(row[0])...)
		}
		require.ElementsMatch(t, p.values(t, metric, "clerkinvite_outcome"), explained)
	}
	names := []string{"otel_scope_name", "http_response_status_code"}
	for _, m := range p.metrics() {
		names = append(append(names, m.labels...), m.prometheus, m.prometheus+"_count", m.prometheus+"_bucket")
	}
	_, alerts, found := strings.Cut(p.text, "```yaml")
	require.True(t, found)
	for _, name := range regexp.MustCompile(`\bclerkinvite_\w+`).FindAllString(alerts, -1) {
		require.Contains(t, names, name, "in an alert")
	}
}

// Every method of Service is a documented verb, except those that are observed under another name.
func TestPageHasEveryVerb(t *testing.T) {
	t.Parallel()
	verbs := readPage(t).values(t, "clerkinvite.verb.duration", "clerkinvite_verb")
	service := reflect.TypeFor[*clerkinvite.Service]()
	for i := range service.NumMethod() {
		if name := service.Method(i).Name; !slices.Contains([]string{"All", "Run", "InTx", "WebhookHandler", "Format"}, name) {
			require.Contains(t, verbs, name)
		}
	}
}

// The page's code is part of the example, which is compiled and run.
func TestPageCodeMatchesExample(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	_, code, found := strings.Cut(readPage(t).text, "```go\n")
	require.True(t, found)
	code, _, _ = strings.Cut(code, "```")
	require.Contains(t, strings.ReplaceAll(string(example), "\n\t", "\n"), code)
}
