package doccheck_test

import (
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// pagesWithNumbers returns the pages, and the comments and help texts that repeat their numbers.
func pagesWithNumbers(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	names = append(names, "README.md", "SECURITY.md", "cmd/clerkinvite/README.md", "cmd/clerkinvite/import.go", "many.go", "examples/river/jobs.go", "sqlitestore/doc.go", "otelclerkinvite/doc.go", "otelclerkinvite/alerts.yaml")
	pages := make(map[string]string)
	for _, name := range names {
		pages[name] = strings.NewReplacer("\n// ", " ", "\n\t// ", " ", "\n", " ").Replace(readPage(t, name))
	}
	return pages
}

// checkNumbers fails the test if a match of the pattern on any page has another value than those allowed. The
// value is the first group that is not empty.
func checkNumbers(t *testing.T, pages map[string]string, pattern string, allowed ...string) {
	t.Helper()
	found := 0
	for name, text := range pages {
		for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			found++
			value := strings.Join(match[1:], "")
			assert.Contains(t, allowed, strings.ReplaceAll(value, ",", ""), "%s: %q", name, match[0])
		}
	}
	assert.Positive(t, found, "no page has %q", pattern)
}

// docs/performance.md has the rate limits of the code, and all other pages agree with it.
func TestClerksLimitsAgree(t *testing.T) {
	t.Parallel()
	pages := pagesWithNumbers(t)
	rows := regexp.MustCompile(`(?m)^\| into .* \| (\d+) \| (\d+) \| \*\*(\d+)\*\* \| (\d+) \| (\d+) \|$`).FindAllStringSubmatch(readPage(t, "docs/performance.md"), -1)
	require.Len(t, rows, 2)
	shares := regexp.MustCompile(`shareCreates = (\d+)|(\d+), "share `).FindAllStringSubmatch(readPage(t, "ratelimit.go"), -1)
	limits := reflect.ValueOf(clerkinvitetest.DocumentedLimits())
	var creates, bulks, people, imports, single []string
	for i, kind := range []string{"", "Organization"} {
		numbers := make([]int, 6)
		for j, digits := range rows[i][1:] {
			numbers[j+1], _ = strconv.Atoi(digits)
		}
		create, bulk, hourly, imported, left := numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]
		require.Equal(t, create+10*bulk, hourly, rows[i][0])
		require.Equal(t, hourly-left, imported, rows[i][0])
		if limit := limits.FieldByName(kind + "Create"); limit.IsValid() {
			require.EqualValues(t, create, limit.FieldByName("Requests").Int(), rows[i][0])
			require.EqualValues(t, bulk, limits.FieldByName(kind+"CreateBulk").FieldByName("Requests").Int(), rows[i][0])
			require.Greater(t, len(shares), i)
			require.Equal(t, strconv.Itoa(create-left), shares[i][1]+shares[i][2], rows[i][0])
		}
		creates, bulks = append(creates, strconv.Itoa(create)), append(bulks, strconv.Itoa(bulk))
		people, imports = append(people, strconv.Itoa(hourly)), append(imports, strconv.Itoa(imported))
		single = append(single, strconv.Itoa(create-left), strconv.Itoa(left))
	}
	rates := slices.Concat(creates, people, imports)
	checkNumbers(t, pages, `(\d+) (?:(?:people|invitations|single creates) )?per hour`, slices.Concat(rates, single)...)
	checkNumbers(t, pages, `(\d+) (?:single|creates\b)`, slices.Concat(creates, single)...)
	checkNumbers(t, pages, `(\d+) (?:bulk requests|bulk creates)`, bulks...)
	checkNumbers(t, pages, `[Ii]mports? (?:gets?|can send) \[?(\d+)|for every (\d+) people`, imports...)
	checkNumbers(t, pages, `[Ii]mports? uses? at most (\d+)|only (\d+) with`, single...)
	checkNumbers(t, pages, `members_reserved\) > (\d+) and`, people[0])
	checkNumbers(t, pages, `([\d,]+) (?:requests )?in 10 s`, strconv.Itoa(clerkinvitetest.DocumentedLimits().All.Requests))

	// How long an import takes, and in how many requests.
	words := map[string]int{"six": 6}
	for name, text := range pages {
		for _, match := range regexp.MustCompile(`([\d,]+) people take about (\w+) hours`).FindAllStringSubmatch(text, -1) {
			n, err := strconv.Atoi(strings.ReplaceAll(match[1], ",", ""))
			require.NoError(t, err)
			hours, ok := words[match[2]]
			if !ok {
				hours, err = strconv.Atoi(match[2])
				require.NoError(t, err, "%s: %q", name, match[0])
			}
			hourly, err := strconv.Atoi(imports[0])
			require.NoError(t, err)
			assert.InDelta(t, float64(n)/float64(hourly), hours, 1, "%s: %q", name, match[0])
		}
		for _, match := range regexp.MustCompile(`(\d+) people take (\d+) requests`).FindAllStringSubmatch(text, -1) {
			n, err := strconv.ParseFloat(match[1], 64)
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprint(math.Ceil(n/100)+math.Ceil(n/10)), match[2], "%s: %q", name, match[0])
		}
	}
}

// Times and sizes on the pages are those of the code.
func TestNumbersAgree(t *testing.T) {
	t.Parallel()
	pages := pagesWithNumbers(t)
	for _, number := range []struct{ pattern, value, file, code string }{
		{"`Config.Lease`,? \\(?(?:about )?(an? \\w+|[\\d.]+ \\w+)|a lease \\((.*?)\\)", "a minute", "invite.go", "cfg.Lease = time.Minute"},
		{"not changed for (an? \\w+)|unchanged for (an? \\w+)", "a day", "invite.go", "doubtAge = 24 * time.Hour"},
		{"due rows (?:about )?every (\\d+ \\w+)|span about every (\\d+ \\w+)", "15 seconds", "run.go", "o.Interval = 15 * time.Second"},
		{"`ReconcileInterval`,? \\(?an? (\\w+)|reconciles every (\\w+)", "hour", "run.go", "o.ReconcileInterval = time.Hour"},
		{"another one can start after (\\d+ \\w+)", "15 minutes", "run.go", "reconcileTurn = 15 * time.Minute"},
		{"after the first (\\d+), so a million", "25", "ratelimit.go", "paceBurst    = 25"},
		{"at most (\\w+) per second after the first", "five", "ratelimit.go", "paceInterval = 200 * time.Millisecond"},
		{"keys? of at least (\\d+) bytes", "24", "webhook.go", "minWebhookKey = 24"},
		{"within (\\w+ \\w+) of now", "five minutes", "webhook.go", "webhookTolerance = 5 * time.Minute"},
		{"for at most (\\d+ seconds) and \\d+ MiB", "15 seconds", "webhook.go", "webhookReadTimeout = 15 * time.Second"},
		{"for at most \\d+ seconds and (\\d+ MiB)|larger than (\\d+ MiB)|body (?:is )?over (\\d+ MiB)", "4 MiB", "webhook.go", "maxWebhookBody = 4 << 20"},
		{"keeps at most (\\d+ KiB)|(?:event|is|or) over (\\d+ KiB)", "256 KiB", "webhook.go", "maxWebhookEvent = 256 << 10"},
	} {
		require.Contains(t, readPage(t, number.file), number.code)
		checkNumbers(t, pages, number.pattern, number.value)
	}
}
