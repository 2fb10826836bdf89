package contract_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(everything{m})) }

// everything runs the tests and then fails if no test needed one of the exceptions.
type everything struct{ m *testing.M }

func (e everything) Run() int {
	code := e.m.Run()
	fmt.Printf("contract: %d exchanges and %d webhooks compared with Clerk's descriptions\n", exchanges.Load(), payloads.Load())
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if flag.Lookup(name).Value.String() != "" {
			return code // some of the tests do not need all exceptions
		}
	}
	if code != 0 || os.Getenv(folderVariable) == "" {
		return code
	}
	for _, text := range unusedExceptions() {
		fmt.Println("contract: this exception is not needed any more:", text)
		code = 1
	}
	return code
}

// Counts of what was compared.
var exchanges, payloads atomic.Int64

const folderVariable = "CLERKINVITE_OPENAPI"

// description is one version of the OpenAPI document for Clerk's Backend API.
type description struct {
	version string
	doc     *openapi3.T
	router  routers.Router
	took    time.Duration
}

// versions are the oldest and the newest Backend API that the library supports. The SDK requests
// the newest.
var versions = []string{"2025-04-10", "2026-05-12"}

// Loading takes seconds under the race detector, so each file is read once, both at the same time.
var loadDescriptions = sync.OnceValues(func() ([]*description, error) {
	all := make([]*description, len(versions))
	faults := make([]error, len(versions))
	var group sync.WaitGroup
	for i, version := range versions {
		group.Go(func() { all[i], faults[i] = loadDescription(version) })
	}
	group.Wait()
	return all, errors.Join(faults...)
})

func loadDescription(version string) (*description, error) {
	began := time.Now()
	data, err := read("bapi", version)
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		return nil, err
	}
	if doc.Info.Version != version || len(doc.Servers) != 1 {
		return nil, fmt.Errorf("this is no description of version %s at one address", version)
	}
	// Requests go to a test server, so only the path of the URL counts.
	u, err := url.Parse(doc.Servers[0].URL)
	if err != nil {
		return nil, err
	}
	doc.Servers = openapi3.Servers{{URL: u.Path}}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return nil, err
	}
	return &description{version, doc, router, time.Since(began)}, nil
}

var loadWebhooks = sync.OnceValues(func() (*openapi3.T, error) {
	data, err := read("webhooks", "2025-04-15")
	if err != nil {
		return nil, err
	}
	// OpenAPI 3.0 has no webhooks, so Clerk keeps them in an extension with the form of paths.
	// Renamed to paths, the loader resolves their references.
	before, after, found := bytes.Cut(data, []byte("\nx-webhooks:"))
	if !found {
		return nil, errors.New("the description of the webhooks has no x-webhooks")
	}
	return openapi3.NewLoader().LoadFromData(append(append(before, "\npaths:"...), after...))
})

// read returns a file by its name here or by its name in Clerk's repository.
func read(kind, version string) ([]byte, error) {
	folder := os.Getenv(folderVariable)
	data, err := os.ReadFile(filepath.Join(folder, kind+"-"+version+".yml"))
	if errors.Is(err, fs.ErrNotExist) {
		data, err = os.ReadFile(filepath.Join(folder, kind, version+".yml"))
	}
	return data, err
}

func needFolder(t testing.TB) {
	t.Helper()
	if os.Getenv(folderVariable) == "" {
		pgtest.Missing(t, "openapi", "set "+folderVariable+" to a clone of https://github.com/clerk/openapi-specs to compare with Clerk's OpenAPI files")
	}
}

func descriptions(t testing.TB) []*description {
	t.Helper()
	needFolder(t)
	all, err := loadDescriptions()
	require.NoError(t, err)
	return all
}

func webhooks(t testing.TB) *openapi3.T {
	t.Helper()
	needFolder(t)
	doc, err := loadWebhooks()
	require.NoError(t, err)
	return doc
}

func TestDescriptionsAreValid(t *testing.T) {
	t.Parallel()
	for _, d := range descriptions(t) {
		require.NoError(t, d.doc.Validate(t.Context()))
		t.Logf("version %s: %d paths loaded in %v", d.version, d.doc.Paths.Len(), d.took)
	}
}

// schemaFaults returns the violations in a JSON value, each with its location.
func schemaFaults(schema *openapi3.Schema, data []byte, as openapi3.SchemaValidationOption) []string {
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return []string{"no JSON: " + err.Error()}
	}
	return reasons(schema.VisitJSON(value, append(schemaOptions(), as, openapi3.MultiErrors())...))
}

// schemaOptions adds the only format of the descriptions that the validator does not know.
func schemaOptions() []openapi3.SchemaValidationOption {
	return []openapi3.SchemaValidationOption{
		openapi3.WithStringFormatValidator("email", openapi3.NewRegexpFormatValidator(openapi3.FormatOfStringForEmail)),
	}
}
