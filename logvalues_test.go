package clerkinvite_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// private is what no log may hold: an address, a link, an API key and a webhook
// secret. It is put into every field that is not known to be printable.
const private = "alice@victim.example https://clerk.victim.example/v1/tickets/accept?ticket=CANARY sk_test_CANARY whsec_CANARY"

// traces are what is left of private in any writing.
var traces = []string{"alice", "victim", "canary", "616c696365", "616C696365", "97 108 105 99 101", "0x61, 0x6c, 0x69", "YWxpY2V"}

// printable are the fields that logs are for, or that hold texts of the library's own.
// A string in any other field of an exported struct must not be printed as it is.
var printable = []string{
	"User.ID", "UserEmail.ID", "InvitationRequest.Template", "Invitation.ID", "Invitation.Status", "InvitationQuery.Status",
	"InviteParams.TenantID", "InviteParams.Template", "Ref.TenantID",
	"Member.ID", "Member.TenantID", "Member.ClerkUserID", "Member.InvitationID", "Member.Reason",
	"ClerkInvitationError.Op", "InvalidParamsError.Field", "InvalidParamsError.Reason",
	"Event.ID", "Event.Type", "Event.InstanceID", "Event.UserID", "WebhookConfig.InstanceID", "PgxOptions.Schema", "Query.IDs", "Query.UserIDs",
	"ListParams.TenantID", "ListParams.Cursor", "Page.Next", "ReconcileOptions.Cursor",
	"PageQuery.TenantID", "PageQuery.AfterID", "HistoryEntry.ClerkUserID", "HistoryEntry.InvitationID", "HistoryEntry.Reason",

	"Options.BaseURL",    // clerkapi.New refuses one that holds a user, a query or a fragment
	"NamedBehavior.Name", // and below, of the fake: ids
	"Mail.InvitationID", "Mail.Template", "UserSpec.ID", "Webhook.ID",
}

// secret is the name of a field that holds a key or a link. Addresses may stand in JSON,
// which is how a host answers an admin; these may not.
var secret = regexp.MustCompile(`(?i)(^|[a-z.])(secrets?|url|params|token|ticket|password|key)$`)

// sendable are the fields that look secret and go into JSON all the same.
var sendable = []string{
	"InviteParams.RedirectURL", "InvitationRequest.RedirectURL", "Config.RedirectURL", "Options.BaseURL",
	"Mail.URL", // the fake's: a test follows the link
}

// words are the exported types that are text and of which every value is the library's
// own. Another one has to be looked at: a Token would print itself.
var words = []string{"clerkinvite.Status", "clerkinvite.Outcome", "clerkinvitetest.Call", "clerkinvitetest.Kind"}

// public are the packages whose types hosts hold in their hands.
var public = map[string]string{
	"github.com/clerkinvite/clerkinvite":                 ".",
	"github.com/clerkinvite/clerkinvite/clerkapi":        "clerkapi",
	"github.com/clerkinvite/clerkinvite/clerkinvitetest": "clerkinvitetest",
}

// A host's own types, which say all that they hold when they are asked.
type (
	hostAPI struct {
		clerkinvite.ClerkAPI
		Key string
	}
	hostDB struct {
		clerkinvite.PgxDB
		Password string
	}
	hostObserver struct {
		clerkinvite.Observer
		Password string
	}
	// hidden shows its value to fmt by reflection only: no method of the value is called.
	hidden struct{ v any }
)

// made has a value of each type that reflection cannot fill, because what it holds cannot
// be reached from outside.
func made(t testing.TB) []any {
	t.Helper()
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []string{"whsec_YWxpY2VAdmljdGltLmV4YW1wbGUgY2FuYXJ5"}})
	require.NoError(t, err)
	store := clerkinvite.NewPgxStore(&hostDB{Password: private}, nil)
	client, err := clerkapi.New("sk_test_CANARYalicevictim", nil)
	require.NoError(t, err)
	svc, err := clerkinvite.New(clerkinvite.Config{API: client, Store: store, RedirectURL: "https://victim.example/canary"})
	require.NoError(t, err)
	clerk := clerkinvitetest.NewClerk()
	clerk.SetSecretKey("sk_test_CANARY")
	clerk.AddVerifiedUser("alice@victim.example")
	_, err = clerk.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: "alice2@victim.example"})
	require.NoError(t, err)
	memory := clerkinvitetest.NewMemoryStore()
	filling, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: memory})
	require.NoError(t, err)
	_, err = filling.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "alice@victim.example"})
	require.NoError(t, err)
	return []any{verifier, store, client, svc, svc.InTx(store), clerk, memory}
}

// inHand has a zero value of each exported type that the functions and methods of the
// public packages hand out or take, found by walking their signatures, and of those that
// only errors.As finds.
func inHand() map[string]reflect.Type {
	found := map[string]reflect.Type{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		if _, ours := public[typ.PkgPath()]; ours {
			name := typeName(typ)
			if found[name] != nil {
				return
			}
			found[name] = typ
			for _, with := range []reflect.Type{typ, reflect.PointerTo(typ)} {
				for i := range with.NumMethod() {
					walk(with.Method(i).Type)
				}
			}
		} else if typ.PkgPath() != "" && typ.Kind() != reflect.Func {
			return // of other packages: iter.Seq2 is a func, and of the rest none holds ours
		}
		switch typ.Kind() {
		case reflect.Map:
			walk(typ.Key())
			walk(typ.Elem())
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Chan:
			walk(typ.Elem())
		case reflect.Func:
			for i := range typ.NumIn() {
				walk(typ.In(i))
			}
			for i := range typ.NumOut() {
				walk(typ.Out(i))
			}
		case reflect.Struct:
			for i := range typ.NumField() {
				if f := typ.Field(i); f.IsExported() {
					walk(f.Type)
				}
			}
		default:
		}
	}
	for _, root := range []any{
		clerkinvite.New, clerkinvite.NewPgxStore, clerkinvite.NewWebhookVerifier, clerkinvite.ParseEvent, clerkapi.New,
		clerkinvitetest.NewClerk, clerkinvitetest.NewMemoryStore, clerkinvitetest.Behaviors, clerkinvitetest.DocumentedLimits,
		clerkinvitetest.ClerkFuncs{}, clerkinvite.Change{},
		clerkinvite.DuplicateEmailError{}, clerkinvite.ClerkInvitationError{}, clerkinvite.APIError{},
		clerkinvite.InvalidParamsError{}, clerkinvite.TransitionError{}, clerkinvite.CooldownError{},
	} {
		walk(reflect.TypeOf(root))
	}
	return found
}

func typeName(typ reflect.Type) string {
	return typ.PkgPath()[strings.LastIndexByte(typ.PkgPath(), '/')+1:] + "." + typ.Name()
}

// samples has a pointer to a value of every exported struct, by name. text says what
// stands in a field.
func samples(t testing.TB, text func(field string) string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, v := range made(t) {
		all[typeName(reflect.TypeOf(v).Elem())] = v
	}
	for name, typ := range inHand() {
		if typ.Kind() == reflect.Interface || typ.Kind() == reflect.Func || all[name] != nil {
			continue
		}
		v := reflect.New(typ)
		fill(t, v.Elem(), "", text)
		all[name] = v.Interface()
	}
	return all
}

// fill puts text into v wherever it can.
func fill(t testing.TB, v reflect.Value, field string, text func(field string) string) {
	t.Helper()
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		return
	case *json.RawMessage:
		*x = json.RawMessage(`"` + text(field) + `"`)
		return
	case *error:
		*x = errors.New(text(field))
		return
	case *any:
		*x = text(field)
		return
	case *clerkinvite.ClerkAPI:
		*x = hostAPI{Key: private}
		return
	case *clerkinvite.Store:
		*x = clerkinvite.NewPgxStore(&hostDB{Password: private}, nil)
		return
	case *clerkinvite.Observer:
		*x = &hostObserver{Password: private}
		return
	}
	if _, ours := public[v.Type().PkgPath()]; !ours && v.Kind() == reflect.Struct {
		return // http.Client, slog.Logger: theirs to print
	}
	switch v.Kind() {
	case reflect.String:
		if v.Type() != reflect.TypeFor[string]() {
			require.Contains(t, words, typeName(v.Type()), "is text of an exported type; print one and add it, or hide it")
			v.SetString("text")
			return
		}
		v.SetString(text(field))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8:
		v.SetUint(uint64(text(field)[0]))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), field, text)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(text(field)))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), field, text)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key, field, text)
		fill(t, value, field, text)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			require.True(t, f.IsExported(), "%s.%s: fill cannot reach it; make the value in made", typeName(v.Type()), f.Name)
			fill(t, v.Field(i), v.Type().Name()+"."+f.Name, text)
		}
	case reflect.Func: // prints as a number
	default:
		t.Fatalf("fill does not know %s in %s", v.Type(), field)
	}
}

func notPrintable(field string) string {
	if slices.Contains(printable, field) {
		return "text"
	}
	return private
}

func TestNothingPrivateIsPrinted(t *testing.T) {
	t.Parallel()
	byHand := map[reflect.Type]bool{}
	for _, v := range made(t) {
		byHand[reflect.TypeOf(v)] = true
	}
	for name, v := range samples(t, notPrintable) {
		typ := reflect.TypeOf(v).Elem()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Locks are not copied: go vet tells whoever does.
			copied := !slices.Contains([]string{"clerkinvite.Service", "clerkinvitetest.Clerk", "clerkinvitetest.MemoryStore"}, name)
			forms := map[string]any{
				"pointer": v, "nil": reflect.Zero(reflect.TypeOf(v)).Interface(), "slice": []any{v}, "map": map[string]any{"key": v},
				"in a struct": inField(v), "in a pointed struct": &struct{ V any }{v},
			}
			if !byHand[reflect.TypeOf(v)] || copied {
				forms["zero"] = reflect.New(typ).Interface()
			}
			if copied {
				value := reflect.ValueOf(v).Elem().Interface()
				forms["value"], forms["value in a struct"], forms["slice of values"] = value, inField(value), sliceOf(value)
				forms["map of values"] = map[int]any{1: value}
			}
			if name == "clerkapi.Client" || name == "clerkinvite.WebhookVerifier" {
				// What holds keys holds them so that not even reflection finds them.
				forms["hidden"], forms["hidden value"] = hidden{v}, hidden{forms["value"]}
			}
			if err, ok := v.(error); ok {
				forms["wrapped"] = fmt.Errorf("inviting: %w", err)
				forms["in a result"] = &clerkinvite.Result{Err: err}
				forms["as a cause"] = &clerkinvite.ClerkInvitationError{Op: "op", Outcome: clerkinvite.Uncertain, Err: err}
				forms["as a wrapped cause"] = &clerkinvite.ClerkInvitationError{Op: "op", Outcome: clerkinvite.Uncertain, Err: errors.Join(err)}
			}
			for form, x := range forms {
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
					checkPrivate(t, form+" "+verb, fmt.Sprintf(verb, x))
				}
				for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
					"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
					"JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
				} {
					if name == "JSON" && (strings.Contains(form, "struct") || strings.Contains(form, "slice") || strings.Contains(form, "map")) {
						continue // encoding/json, which is to write addresses: see Member, and TestNoSecretInJSON for the rest
					}
					var buf bytes.Buffer
					slog.New(handler(&buf)).With("with", x).Log(context.Background(), slog.LevelInfo, "msg", "key", x, slog.Group("group", "key", x))
					checkPrivate(t, form+" slog "+name, buf.String())
				}
			}
		})
	}
}

// inField returns a host's struct that holds v in an exported field of its own type.
func inField(v any) any {
	wrapper := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "Field", Type: reflect.TypeOf(v)}})).Elem()
	wrapper.Field(0).Set(reflect.ValueOf(v))
	return wrapper.Interface()
}

func sliceOf(v any) any {
	list := reflect.MakeSlice(reflect.SliceOf(reflect.TypeOf(v)), 1, 1)
	list.Index(0).Set(reflect.ValueOf(v))
	return list.Interface()
}

func checkPrivate(t *testing.T, how, printed string) {
	t.Helper()
	for _, trace := range traces {
		if strings.Contains(printed, trace) || strings.Contains(strings.ToLower(printed), trace) {
			t.Errorf("%s prints what is private: %.300s", how, printed)
			return
		}
	}
}

// A host answers with these types as JSON, and slog's JSON handler writes slices of them
// so: addresses stand there, keys and links never.
func TestNoSecretInJSON(t *testing.T) {
	t.Parallel()
	onlySecrets := func(field string) string {
		if secret.MatchString(field) && !slices.Contains(sendable, field) {
			return private
		}
		return "text"
	}
	n := 0
	for name, v := range samples(t, onlySecrets) {
		for _, form := range []any{v, []any{v}, map[string]any{"key": v}, inField(v)} {
			out, err := json.Marshal(form)
			if err != nil { // a func in it: not for JSON
				require.NotContains(t, err.Error(), "CANARY")
				continue
			}
			n++
			checkPrivate(t, name+" as JSON", string(out))
		}
	}
	require.Greater(t, n, 100)

	// The rule finds what it is for.
	require.Equal(t, private, onlySecrets("Member.URL"))
	require.Equal(t, private, onlySecrets("WebhookConfig.Secrets"))
	require.Equal(t, private, onlySecrets("Leak.APIKey"))
	require.Equal(t, "text", onlySecrets("Member.Email"))
}

// The texts of errors, too, are printed by hosts: log.Print(err.Error()). The one that
// holds an address on purpose says so in its documentation.
func TestErrorTextsHoldNothingPrivate(t *testing.T) {
	t.Parallel()
	n := 0
	for _, v := range samples(t, notPrintable) {
		err, ok := v.(error)
		if !ok {
			continue
		}
		n++
		var dup *clerkinvite.DuplicateEmailError
		if errors.As(err, &dup) && any(dup) == v {
			assert.Contains(t, err.Error(), "alice@victim.example")
			continue
		}
		checkPrivate(t, fmt.Sprintf("%T.Error", v), err.Error())
		_, message := clerkinvite.HTTPError(err)
		checkPrivate(t, fmt.Sprintf("HTTPError(%T)", v), message)
		_, message = clerkinvite.HTTPError(fmt.Errorf("%s: %w", private, err))
		checkPrivate(t, fmt.Sprintf("HTTPError(wrapped %T)", v), message)
	}
	assert.Equal(t, 6, n)
	status, message := clerkinvite.HTTPError(errors.New(private))
	assert.Equal(t, 500, status)
	checkPrivate(t, "HTTPError(unknown)", message)
}

// What constructors say of a secret that they refuse holds nothing of it.
func TestRefusedSecretsAreNotRepeated(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"sk_test_CANARY\n", " sk_test_CANARY", "pk_test_CANARY", "sk_test_CÄNARY-canary"} {
		_, err := clerkapi.New(bad, &clerkapi.Options{BaseURL: "https://alice:canary@victim.example/?key=canary"})
		require.Error(t, err)
		checkPrivate(t, "clerkapi.New", fmt.Sprintf("%v %#v", err, err))
	}
	for _, bad := range []string{"whsec_canary\n", "whsec_canary", "whsec_alice*victim*canary*alice*victim*canary", "whsec_" + private} {
		_, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []string{bad}, InstanceID: private})
		require.Error(t, err)
		checkPrivate(t, "NewWebhookVerifier", fmt.Sprintf("%v %#v", err, err))
	}
	_, err := clerkinvite.New(clerkinvite.Config{API: hostAPI{Key: private}, RedirectURL: "victim canary alice"})
	require.Error(t, err)
	checkPrivate(t, "New", fmt.Sprintf("%v %#v", err, err))
}

// TestEveryExportedTypeIsPrinted has the type checker list the exported types, so that a
// new one cannot be forgotten above.
func TestEveryExportedTypeIsPrinted(t *testing.T) {
	t.Parallel()
	sampled := samples(t, notPrintable)
	total := 0
	for name, typ := range exportedTypes(t) {
		total++
		switch under := typ.Underlying().(type) {
		case *types.Interface, *types.Signature: // they hold what hosts give them
		case *types.Basic:
			if under.Info()&types.IsString != 0 {
				assert.Contains(t, words, name, "is new: does it hold what must not be printed?")
			}
		default:
			assert.Contains(t, sampled, name, "add a function that takes or returns it to inHand, or a value to made")
		}
	}
	require.Greater(t, total, 50)
}

// exportedTypes returns the exported types of the public packages that are no other
// names of types elsewhere.
func exportedTypes(t testing.TB) map[string]types.Type {
	t.Helper()
	all := map[string]types.Type{}
	from := &sources{fset: token.NewFileSet(), packages: map[string]*types.Package{}}
	for path := range public {
		p, err := from.Import(path)
		require.NoError(t, err)
		for _, name := range p.Scope().Names() {
			if typ, ok := p.Scope().Lookup(name).(*types.TypeName); ok && typ.Exported() && !typ.IsAlias() {
				all[p.Name()+"."+name] = typ.Type()
			}
		}
	}
	return all
}

// sources is an importer that checks the public packages from their source, and takes
// every other for an empty one: what is declared here does not depend on them, and to
// check all of them takes ten seconds.
type sources struct {
	fset     *token.FileSet
	packages map[string]*types.Package
}

func (s *sources) Import(path string) (*types.Package, error) {
	if p := s.packages[path]; p != nil {
		return p, nil
	}
	dir, ours := public[path]
	if !ours {
		p := types.NewPackage(path, filepath.Base(path))
		p.MarkComplete()
		s.packages[path] = p
		return p, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, e := range entries {
		if name := e.Name(); e.Type() != fs.ModeDir && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			file, err := parser.ParseFile(s.fset, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			files = append(files, file)
		}
	}
	check := types.Config{Importer: s, IgnoreFuncBodies: true, Error: func(error) {}}
	p, _ := check.Check(path, s.fset, files, nil) // its error: names of the empty packages
	s.packages[path] = p
	return p, nil
}
