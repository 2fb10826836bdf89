package attacks_test

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
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// personal is in every field that may contain personal data: logs and %v must not show it.
const personal = "alice@victim.example"

// confidential is in every Secret: nothing may show it.
const confidential = "https://clerk.example/v1/tickets/accept?ticket=CANARY sk_test_CANARY whsec_CANARY"

// personalTraces and secretTraces are these two as text, hex, bytes and base64.
var (
	personalTraces = []string{"alice", "victim", "616c696365", "97 108 105 99 101", "0x61, 0x6c, 0x69", "YWxpY2V"}
	secretTraces   = []string{"canary", "63616e617279", "43414e415259", "99 97 110 97 114 121", "67 65 78 65 82 89", "0x63, 0x61, 0x6e", "0x43, 0x41, 0x4e", "Y2FuYXJ5"}
)

// printable are the fields that logs may show. A string in any other field of an exported
// struct must not be in a log.
var printable = []string{
	"User.ID", "UserEmail.ID", "InvitationRequest.Template", "Invitation.ID", "Invitation.Status", "InvitationQuery.Status",
	"InviteParams.TenantID", "InviteParams.Template", "Ref.TenantID",
	"Member.ID", "Member.TenantID", "Member.ClerkUserID", "Member.InvitationID", "Member.Reason",
	"ClerkInvitationError.Op", "InvalidParamsError.Field", "InvalidParamsError.Reason",
	"Event.ID", "Event.Type", "Event.InstanceID", "Event.UserID", "Event.OrganizationID", "Event.InvitationID", "WebhookConfig.InstanceID", "PgxOptions.Schema", "Query.IDs", "Query.UserIDs",
	"ListParams.TenantID", "ListParams.Cursor", "Page.Next", "ReconcileOptions.Cursor", "ReconcileReport.Cursor",
	"PageQuery.TenantID", "PageQuery.AfterID", "HistoryEntry.ClerkUserID", "HistoryEntry.InvitationID", "HistoryEntry.Reason",

	// IDs at Clerk, and keys of its roles.
	"Organization.ID", "Organization.Role", "Organization.Inviter", "Membership.OrganizationID", "Membership.UserID", "Membership.Role",
	"MembershipQuery.OrganizationID", "MembershipQuery.UserIDs", "RevokeRequest.ID", "RevokeRequest.OrganizationID",

	// The names of tables and columns, and a column's fixed values.
	"Mirror.Table", "Mirror.Schema", "Mirror.TenantID", "Mirror.Email", "Mirror.ClerkUserID", "Mirror.Status", "Mirror.Role", "Mirror.MemberID",
	"Mirror.LeftColumn", "Mirror.LeftValue", "Mirror.PresentValue",

	"Options.BaseURL",    // clerkapi.New rejects a URL with a user, a query or a fragment
	"NamedBehavior.Name", // and below, in the fake: IDs
	"Mail.InvitationID", "Mail.Template", "UserSpec.ID", "Webhook.ID",
}

// secret is the name of a field with a key or a link. It must be a Secret.
var secret = regexp.MustCompile(`(?i)(^|[a-z.])(secrets?|url|params|token|ticket|password|key)$`)

// notSecret are the fields that only look like one.
var notSecret = []string{
	"InviteParams.RedirectURL", "InvitationRequest.RedirectURL", "Config.RedirectURL", "Options.BaseURL",
	"Mail.URL",      // in the fake: a test opens the link
	"Member.Params", // contains what goes to Clerk; not in JSON
}

// settings are the types that print only their settings, with every verb.
var settings = []string{
	"clerkinvite.Config", "clerkinvite.Service", "clerkinvite.Reserver", "clerkinvite.PgxStore",
	"clerkinvite.WebhookVerifier", "clerkapi.Client", "clerkinvitetest.Clerk", "clerkinvitetest.MemoryStore",
}

// words are the exported text types with only the library's and Clerk's values. Another
// type must be checked: a type Token would print itself.
var words = []string{"clerkinvite.Status", "clerkinvite.InvitationStatus", "clerkinvite.Outcome", "clerkinvitetest.Call", "clerkinvitetest.Kind"}

// public are the packages whose types hosts use.
var public = map[string]string{
	"github.com/clerkinvite/clerkinvite":                 root,
	"github.com/clerkinvite/clerkinvite/clerkapi":        root + "/clerkapi",
	"github.com/clerkinvite/clerkinvite/clerkinvitetest": root + "/clerkinvitetest",
}

// A host's types, which print all of their fields.
type (
	hostAPI struct {
		clerkinvite.ClerkAPI
		Key string
	}
	hostOrganizations struct {
		clerkinvite.OrganizationAPI
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
	// hidden has an unexported field: fmt reads it by reflection and cannot call its methods.
	hidden struct{ v any }
)

// made has a value of each type that reflection cannot fill, because its fields are unexported.
func made(t testing.TB) []any {
	t.Helper()
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: testkit.Secrets("whsec_YWxpY2VAdmljdGltLmV4YW1wbGUgY2FuYXJ5")})
	require.NoError(t, err)
	store := clerkinvite.NewPgxStore(&hostDB{Password: personal}, nil)
	client, err := clerkapi.New("sk_test_CANARYalicevictim", nil)
	require.NoError(t, err)
	svc, err := clerkinvite.New(clerkinvite.Config{API: client, Store: store, RedirectURL: "https://victim.example/"})
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
	return []any{verifier, store, client, svc, svc.InTx(store), clerk, clerkinvitetest.NewClock(time.Time{}), memory}
}

// inHand has each exported type in the signatures of the public packages, and the types
// that only errors.As finds.
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
			return // other packages' types contain none of ours, except the func iter.Seq2
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
		clerkinvitetest.ClerkFuncs{}, clerkinvite.Change{}, clerkinvite.Mirror{},
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

// samples has a pointer to a value of every exported struct, by name. text returns the
// text for a field.
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

// plain are the types of unexported fields that fill sets. A field of another type, such as a Secret, must be set as the
// package itself sets it.
var plain = []reflect.Type{reflect.TypeFor[string](), reflect.TypeFor[time.Duration](), reflect.TypeFor[time.Time]()}

// fill sets all of v: texts to text, and secrets to confidential.
func fill(t testing.TB, v reflect.Value, field string, text func(field string) string) {
	t.Helper()
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		return
	case *clerkinvite.Secret:
		*x = clerkinvite.NewSecret(confidential)
		return
	case *json.RawMessage:
		requireNoSecret(t, field)
		*x = json.RawMessage(`"` + text(field) + `"`)
		return
	case *error:
		*x = errors.New(text(field))
		return
	case *any:
		*x = text(field)
		return
	case *clerkinvite.ClerkAPI:
		*x = hostAPI{Key: personal}
		return
	case *clerkinvite.OrganizationAPI:
		*x = hostOrganizations{Key: personal}
		return
	case *clerkinvite.Store:
		*x = clerkinvite.NewPgxStore(&hostDB{Password: personal}, nil)
		return
	case *clerkinvite.Observer:
		*x = &hostObserver{Password: personal}
		return
	}
	if _, ours := public[v.Type().PkgPath()]; !ours && v.Kind() == reflect.Struct {
		return // http.Client, slog.Logger
	}
	switch v.Kind() {
	case reflect.String:
		if v.Type() != reflect.TypeFor[string]() {
			require.Contains(t, words, typeName(v.Type()), "is a text type: check what it prints, then add it here or make it a Secret")
			v.SetString("text")
			return
		}
		requireNoSecret(t, field)
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
			f, value := v.Type().Field(i), v.Field(i)
			if !f.IsExported() {
				require.Contains(t, plain, f.Type, "%s.%s: fill cannot reach it; make the value in made", typeName(v.Type()), f.Name)
				value = reflect.NewAt(f.Type, value.Addr().UnsafePointer()).Elem()
			}
			fill(t, value, v.Type().Name()+"."+f.Name, text)
		}
	case reflect.Func: // prints as a number
	default:
		t.Fatalf("fill does not know %s in %s", v.Type(), field)
	}
}

func requireNoSecret(t testing.TB, field string) {
	t.Helper()
	require.False(t, secret.MatchString(field) && !slices.Contains(notSecret, field), "%s looks like a secret: make it a Secret", field)
}

func notPrintable(field string) string {
	if slices.Contains(printable, field) {
		return "text"
	}
	return personal
}

// forms returns v alone and inside other values. The second result has the values that slog's handlers
// print with %+v or as JSON. copied reports whether v may be copied.
func forms(v any, copied bool) (direct, inside map[string]any) {
	direct = map[string]any{"pointer": v, "nil": reflect.Zero(reflect.TypeOf(v)).Interface()}
	inside = map[string]any{
		"slice": []any{v}, "map": map[string]any{"key": v}, "struct": inField(v), "pointed struct": &struct{ V any }{v},
	}
	if copied {
		value := reflect.ValueOf(v).Elem().Interface()
		direct["value"], direct["zero"] = value, reflect.New(reflect.TypeOf(value)).Interface()
		inside["struct of a value"], inside["slice of values"], inside["map of values"] = inField(value), sliceOf(value), map[int]any{1: value}
	}
	return direct, inside
}

// copyable reports whether a type may be copied and has a useful zero value.
func copyable(name string) bool {
	return !slices.Contains([]string{"clerkinvite.Service", "clerkinvite.Reserver", "clerkinvitetest.Clerk", "clerkinvitetest.Clock", "clerkinvitetest.MemoryStore"}, name)
}

var allVerbs = []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"}

// Promise 6: logs and %v of every value show no personal data, and nothing shows a secret.
func TestPromise6_NothingPrivateIsPrinted(t *testing.T) {
	t.Parallel()
	for name, v := range samples(t, notPrintable) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct, inside := forms(v, copyable(name))
			_, isError := v.(error)
			if isError {
				direct, inside = errorForms(v.(error)), nil
			}
			full := func(verb string) bool { // prints personal data
				return verb == "%#v" || verb == "%+v" && !isError || isError && verb == "%d"
			}
			for form, x := range direct {
				for _, verb := range allVerbs {
					printed := fmt.Sprintf(verb, x)
					checkTraces(t, form+" "+verb, printed, secretTraces)
					if !full(verb) || slices.Contains(settings, name) {
						checkTraces(t, form+" "+verb, printed, personalTraces)
					}
				}
				checkTraces(t, form+" slog", logged(x), slices.Concat(personalTraces, secretTraces))
			}
			for form, x := range inside {
				for _, verb := range allVerbs {
					printed := fmt.Sprintf(verb, x)
					checkTraces(t, "in a "+form+" "+verb, printed, secretTraces)
					if !full(verb) || slices.Contains(settings, name) {
						checkTraces(t, "in a "+form+" "+verb, printed, personalTraces)
					}
				}
				checkTraces(t, "in a "+form+" slog", logged(x), secretTraces)
			}
			if name == "clerkinvitetest.Clerk" {
				return // the fake's keys and links are not secret
			}
			for _, x := range []any{hidden{v}, hidden{direct["value"]}, &hidden{direct["value"]}} {
				for _, verb := range allVerbs {
					checkTraces(t, "hidden "+verb, fmt.Sprintf(verb, x), secretTraces)
				}
				checkTraces(t, "hidden slog", logged(x), secretTraces)
			}
		})
	}
}

// errorForms returns err alone, wrapped, joined, and as the cause of other errors.
func errorForms(err error) map[string]any {
	cause := func(err error) error {
		return &clerkinvite.ClerkInvitationError{Op: "op", Outcome: clerkinvite.OutcomeUncertain, Err: err}
	}
	return map[string]any{
		"error": err, "nil": reflect.Zero(reflect.TypeOf(err)).Interface(), "wrapped": fmt.Errorf("inviting: %w", err), "joined": errors.Join(err, err),
		"as a cause": cause(err), "as a joined cause": cause(errors.Join(err)), "in an API error": &clerkinvite.APIError{Err: err},
	}
}

// logged returns what slog's two handlers write about x.
func logged(x any) string {
	var buf bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&buf, nil), slog.NewJSONHandler(&buf, nil)} {
		slog.New(handler).With("with", x).Log(context.Background(), slog.LevelInfo, "msg", "key", x, slog.Group("group", "key", x))
	}
	return buf.String()
}

// %+v and %#v print every exported field that is not a secret, and two different values print two
// different texts with every verb, so that a failed expectation of a mock can be read.
func TestValuesPrintAllForTests(t *testing.T) {
	t.Parallel()
	for name, v := range samples(t, func(field string) string { return field }) {
		_, isError := v.(error)
		_, formats := v.(fmt.Formatter)
		if isError || !formats || slices.Contains(settings, name) || name == "clerkinvite.Secret" {
			continue
		}
		typ := reflect.TypeOf(v).Elem()
		for _, verb := range []string{"%+v", "%#v"} {
			printed := fmt.Sprintf(verb, v)
			for i := range typ.NumField() {
				if !typ.Field(i).IsExported() {
					continue // hosts cannot set the field
				}
				require.Contains(t, printed, typ.Field(i).Name+":", "%s of %s", verb, name)
			}
			require.NotContains(t, printed, "0xc0", "%s of %s prints an address in memory", verb, name)
		}
		for i := range typ.NumField() {
			if !typ.Field(i).IsExported() || typ.Field(i).Type.Kind() == reflect.Func || typ.Field(i).Type == reflect.TypeFor[clerkinvite.Secret]() {
				continue
			}
			other := reflect.New(typ)
			other.Elem().Set(reflect.ValueOf(v).Elem())
			other.Elem().Field(i).SetZero()
			for _, verb := range []string{"%v", "%s", "%+v", "%#v"} {
				require.NotEqual(t, fmt.Sprintf(verb, v), fmt.Sprintf(verb, other.Interface()), "%s of %s does not show %s", verb, name, typ.Field(i).Name)
			}
		}
	}
	at := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	m := clerkinvite.Member{ID: "1", Email: "ada@example.com", Status: clerkinvite.StatusPending, URL: clerkinvite.NewSecret(confidential), Data: json.RawMessage(`{"a":1}`), ExpiresAt: &at}
	for _, verb := range []string{"%+v", "%#v"} {
		require.Equal(t, `clerkinvite.Member{ID:"1" Email:"ada@example.com" Status:"pending" URL:[secret] Data:{"a":1} ExpiresAt:2026-03-01 09:00:00 +0000 UTC}`, fmt.Sprintf(verb, &m))
	}
}

func TestPromise6_SecretsNeverPrint(t *testing.T) {
	t.Parallel()
	s, same, other, zero := clerkinvite.NewSecret(confidential), clerkinvite.NewSecret(strings.Clone(confidential)), clerkinvite.NewSecret("x"), clerkinvite.NewSecret("")
	require.Equal(t, confidential, s.Reveal())
	require.False(t, s.IsZero())
	require.Equal(t, s, same)
	require.True(t, s == same && s != other && reflect.DeepEqual(&s, &same) && !reflect.DeepEqual(s, other))
	require.True(t, zero.IsZero())
	require.Equal(t, clerkinvite.Secret{}, zero)
	require.Empty(t, zero.Reveal())

	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q", "%t", "%10s"} {
		require.Equal(t, "[secret]", fmt.Sprintf(verb, s))
		require.Empty(t, fmt.Sprintf(verb, zero))
	}
	require.Contains(t, logged(s), "[secret]")
	for _, x := range []any{s, &s, struct{ S clerkinvite.Secret }{s}, []clerkinvite.Secret{s}, map[clerkinvite.Secret]int{s: 1}, hidden{s}, hidden{&s}} {
		for _, verb := range allVerbs {
			checkTraces(t, verb, fmt.Sprintf(verb, x), secretTraces)
		}
		checkTraces(t, "slog", logged(x), secretTraces)
		out, err := json.Marshal(x)
		require.NoError(t, err)
		checkTraces(t, "JSON", string(out), secretTraces)
	}

	// Stores read and write the text.
	value, err := s.Value()
	require.NoError(t, err)
	require.Equal(t, confidential, value)
	for _, src := range []any{confidential, []byte(confidential)} {
		var read clerkinvite.Secret
		require.NoError(t, read.Scan(src))
		require.Equal(t, s, read)
		require.NoError(t, read.Scan(nil))
		require.True(t, read.IsZero())
	}
	require.EqualError(t, new(clerkinvite.Secret).Scan(7), "clerkinvite: scan a Secret: must be text, is int")
}

// inField returns a host's struct with v in an exported field of v's type.
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

func checkTraces(t *testing.T, how, printed string, traces []string) {
	t.Helper()
	for _, trace := range traces {
		if strings.Contains(printed, trace) || strings.Contains(strings.ToLower(printed), trace) {
			t.Errorf("%s prints private data: %.300s", how, printed)
			return
		}
	}
}

func checkPrivate(t *testing.T, how, printed string) {
	t.Helper()
	checkTraces(t, how, printed, slices.Concat(personalTraces, secretTraces))
}

// Hosts return these types as JSON: they contain addresses, but no keys or links.
func TestPromise6_NoSecretInJSON(t *testing.T) {
	t.Parallel()
	n := 0
	for name, v := range samples(t, func(field string) string {
		if field == "Member.Params" {
			return confidential
		}
		return "text"
	}) {
		for _, form := range []any{v, []any{v}, map[string]any{"key": v}, inField(v)} {
			out, err := json.Marshal(form)
			if err != nil { // it has a func
				require.NotContains(t, err.Error(), "CANARY")
				continue
			}
			n++
			checkPrivate(t, name+" as JSON", string(out))
			if name != "clerkinvite.Secret" {
				assert.NotContains(t, string(out), "[secret]", name)
			}
		}
	}
	require.Greater(t, n, 100)
	for _, field := range []string{"Leak.URL", "Leak.Secrets", "Leak.APIKey"} {
		require.Regexp(t, secret, field)
	}
	require.NotRegexp(t, secret, "Member.Email")
}

// Error() contains no address, link or key, even if Clerk's texts or a foreign cause contain
// one. The text for an admin comes from HTTPError.
func TestPromise6_ErrorTextsHaveNothingPrivate(t *testing.T) {
	t.Parallel()
	const private = personal + " " + confidential
	n := 0
	for _, v := range samples(t, func(field string) string {
		if slices.Contains(printable, field) {
			return "text"
		}
		return private
	}) {
		err, ok := v.(error)
		if !ok {
			continue
		}
		n++
		checkPrivate(t, fmt.Sprintf("%T.Error", v), err.Error())
		for _, err := range []error{err, fmt.Errorf("%s: %w", private, err)} {
			_, message := clerkinvite.HTTPError(err)
			var dup *clerkinvite.DuplicateEmailError
			if errors.As(err, &dup) && any(dup) == v {
				assert.Contains(t, message, personal)
				continue
			}
			checkPrivate(t, fmt.Sprintf("HTTPError(%T)", v), message)
		}
	}
	assert.Equal(t, 6, n)
	status, message := clerkinvite.HTTPError(errors.New(private))
	assert.Equal(t, 500, status)
	checkPrivate(t, "HTTPError(unknown)", message)
}

// The errors of constructors do not repeat a rejected secret.
func TestPromise6_ErrorsDoNotRepeatSecrets(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"sk_test_CANARY\n", " sk_test_CANARY", "pk_test_CANARY", "sk_test_CÄNARY-canary"} {
		_, err := clerkapi.New(bad, &clerkapi.Options{BaseURL: "https://alice:canary@victim.example/?key=canary"})
		require.Error(t, err)
		checkPrivate(t, "clerkapi.New", fmt.Sprintf("%v %#v", err, err))
	}
	for _, bad := range []string{"whsec_canary\n", "whsec_canary", "whsec_alice*victim*canary*alice*victim*canary", "whsec_" + personal + confidential} {
		_, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: testkit.Secrets(bad), InstanceID: personal})
		require.Error(t, err)
		checkPrivate(t, "NewWebhookVerifier", fmt.Sprintf("%v %#v", err, err))
	}
	_, err := clerkinvite.New(clerkinvite.Config{API: hostAPI{Key: personal}, RedirectURL: "victim canary alice"})
	require.Error(t, err)
	checkPrivate(t, "New", fmt.Sprintf("%v %#v", err, err))
}

// The type checker lists the exported types, so that no new one is missing above.
func TestEveryExportedTypeIsPrinted(t *testing.T) {
	t.Parallel()
	sampled := samples(t, notPrintable)
	total := 0
	for name, typ := range exportedTypes(t) {
		total++
		switch under := typ.Underlying().(type) {
		case *types.Interface, *types.Signature: // values of the host
		case *types.Basic:
			if under.Info()&types.IsString != 0 {
				assert.Contains(t, words, name, "is new: check whether it may be printed")
			}
		default:
			assert.Contains(t, sampled, name, "add a function that takes or returns it to inHand, or a value to made")
		}
	}
	require.Greater(t, total, 50)
}

// exportedTypes returns the exported types of the public packages, without aliases.
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

// sources is an importer that checks the public packages from their source, and treats
// every other package as empty. Checking all of them takes ten seconds.
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
	p, _ := check.Check(path, s.fset, files, nil) // the error is about the empty packages
	s.packages[path] = p
	return p, nil
}
