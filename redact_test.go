package clerkinvite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// private is what no log may hold: an address, a link, an API key and a webhook
// secret. It is put into every field that is not known to be printable.
const private = "alice@victim.example https://clerk.victim.example/v1/tickets/accept?ticket=CANARY sk_test_CANARY whsec_CANARY"

// traces are what is left of private in any writing.
var traces = []string{"alice", "victim", "canary", "616c696365", "616C696365", "97 108 105 99 101", "0x61, 0x6c, 0x69"}

// printable are the fields that logs are for, or that hold texts of the library's own.
// A string in any other field of an exported struct must not be printed as it is.
var printable = []string{
	"User.ID", "UserEmail.ID", "InvitationRequest.Template", "Invitation.ID", "Invitation.Status", "InvitationQuery.Status",
	"RevokeRequest.InvitationID", "InviteParams.TenantID", "InviteParams.Template", "Ref.TenantID",
	"Member.ID", "Member.TenantID", "Member.ClerkUserID", "Member.InvitationID", "Member.Reason",
	"ClerkInvitationError.Op", "InvalidParamsError.Field", "InvalidParamsError.Reason",
	"Event.ID", "Event.Type", "Event.InstanceID", "Event.UserID", "WebhookConfig.InstanceID", "PgxOptions.Schema", "Query.IDs", "Query.UserIDs",
	"ListParams.TenantID", "ListParams.Cursor", "Page.Next", "ReconcileOptions.Cursor",
	"Scan.TenantID", "Scan.AfterID", "Move.ClerkUserID", "Move.InvitationID", "Move.Reason",
}

// samples has a value of every exported type that can hold anything: a pointer where
// the library hands out pointers. TestNothingPrivateIsPrinted also prints what it
// points at, and the nil pointer.
func samples(t *testing.T) []any {
	t.Helper()
	verifier, err := NewWebhookVerifier(WebhookConfig{Secrets: []string{"whsec_YWxpY2VAdmljdGltLmV4YW1wbGUgY2FuYXJ5"}})
	require.NoError(t, err)
	type api struct {
		ClerkAPI
		Key string
	}
	type db struct {
		PgxDB
		Password string
	}
	store := NewPgxStore(db{Password: private}, nil)
	svc, err := New(Config{API: api{Key: private}, Store: store, RedirectURL: "https://victim.example/canary"})
	require.NoError(t, err)
	values := []any{
		// Filled by hand: what they hold cannot be reached from outside.
		verifier, store, svc, svc.InTx(store), &Config{API: api{Key: private}, Store: store, RedirectURL: private},
	}
	for _, v := range []any{
		&UserQuery{}, &User{}, &UserEmail{}, &InvitationRequest{}, &Invitation{}, &InvitationQuery{}, &RevokeRequest{},
		&DuplicateEmailError{}, &ClerkInvitationError{}, &APIError{}, &InvalidParamsError{}, &TransitionError{}, &CooldownError{},
		&Ref{}, &Member{}, &Result{}, &Change{}, &Query{}, &InviteParams{}, &DeliverOptions{}, &DeliverReport{},
		&PgxOptions{}, &WebhookConfig{}, &Event{}, &ManyOptions{}, &ManyProgress{}, &ListParams{}, &Page{}, &MemberUpdate{},
		&ReconcileOptions{}, &ReconcileReport{}, &RunOptions{},
		&Scan{}, &Move{},
	} {
		fill(t, reflect.ValueOf(v).Elem(), "")
		values = append(values, v)
	}
	return values
}

// fill puts private into v wherever it can.
func fill(t *testing.T, v reflect.Value, field string) {
	t.Helper()
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		return
	case *json.RawMessage:
		*x = json.RawMessage(`"` + private + `"`)
		return
	case *error:
		*x = errors.New(private)
		return
	case *any:
		*x = private
		return
	}
	switch v.Kind() {
	case reflect.String:
		text := private
		// Status and Outcome are the library's own.
		if v.Type() != reflect.TypeFor[string]() || slices.Contains(printable, field) {
			text = "text"
		}
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), field)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), field)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key, field)
		fill(t, value, field)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			require.True(t, f.IsExported(), "%s.%s: fill cannot reach it; build %s by hand", v.Type().Name(), f.Name, v.Type().Name())
			fill(t, v.Field(i), v.Type().Name()+"."+f.Name)
		}
	case reflect.Func: // prints as a number
	default:
		t.Fatalf("fill does not know %s in %s", v.Type(), field)
	}
}

func TestNothingPrivateIsPrinted(t *testing.T) {
	t.Parallel()
	for _, v := range samples(t) {
		typ := reflect.TypeOf(v).Elem()
		t.Run(typ.Name(), func(t *testing.T) {
			t.Parallel()
			wrapper := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "Field", Type: reflect.TypeOf(v)}})).Elem()
			wrapper.Field(0).Set(reflect.ValueOf(v))
			forms := map[string]any{
				"pointer": v, "value": reflect.ValueOf(v).Elem().Interface(), "nil": reflect.Zero(reflect.TypeOf(v)).Interface(),
				"zero": reflect.New(typ).Interface(), "slice": []any{v}, "in a struct": wrapper.Interface(),
			}
			if _, ok := v.(*Service); ok {
				delete(forms, "value") // it holds a lock: go vet tells whoever copies it
			}
			if err, ok := v.(error); ok {
				forms["wrapped"] = fmt.Errorf("inviting: %w", err)
				forms["in a result"] = &Result{Err: err}
				forms["as a cause"] = &ClerkInvitationError{Op: "op", Outcome: Uncertain, Err: err}
				forms["as a wrapped cause"] = &ClerkInvitationError{Op: "op", Outcome: Uncertain, Err: errors.Join(err)}
			}
			for form, x := range forms {
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
					checkPrivate(t, form+" "+verb, fmt.Sprintf(verb, x))
				}
				for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
					"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
					"JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
				} {
					if name == "JSON" && (form == "slice" || form == "in a struct") {
						continue // encoding/json, which is to write addresses: see Member
					}
					var buf bytes.Buffer
					slog.New(handler(&buf)).Log(context.Background(), slog.LevelInfo, "msg", "key", x, slog.Group("group", "key", x))
					checkPrivate(t, form+" slog "+name, buf.String())
				}
			}
		})
	}
}

func checkPrivate(t *testing.T, how, printed string) {
	t.Helper()
	for _, trace := range traces {
		if strings.Contains(printed, trace) || strings.Contains(strings.ToLower(printed), trace) {
			t.Errorf("%s prints what is private: %.200s", how, printed)
			return
		}
	}
}

// The texts of errors, too, are printed by hosts: log.Print(err.Error()). The one that
// holds an address on purpose says so in its documentation.
func TestErrorTextsHoldNothingPrivate(t *testing.T) {
	t.Parallel()
	n := 0
	for _, v := range samples(t) {
		err, ok := v.(error)
		if !ok {
			continue
		}
		n++
		if _, ok := v.(*DuplicateEmailError); ok {
			assert.Contains(t, err.Error(), "alice@victim.example")
			continue
		}
		checkPrivate(t, fmt.Sprintf("%T.Error", v), err.Error())
		_, message := HTTPError(err)
		checkPrivate(t, fmt.Sprintf("HTTPError(%T)", v), message)
		_, message = HTTPError(fmt.Errorf("%s: %w", private, err))
		checkPrivate(t, fmt.Sprintf("HTTPError(wrapped %T)", v), message)
	}
	assert.Equal(t, 6, n)
	status, message := HTTPError(errors.New(private))
	assert.Equal(t, 500, status)
	checkPrivate(t, "HTTPError(unknown)", message)
}

// TestEveryExportedTypeHasASample reads the package's source, so that a new type
// cannot be forgotten above.
func TestEveryExportedTypeHasASample(t *testing.T) {
	t.Parallel()
	var sampled []string
	for _, v := range samples(t) {
		sampled = append(sampled, reflect.TypeOf(v).Elem().Name())
	}
	declared := exportedTypes(t)
	require.Contains(t, declared, "Member")
	slices.Sort(sampled)
	slices.Sort(declared)
	assert.Equal(t, declared, sampled, "add the type to samples")
}

// exportedTypes returns the exported types of the package that are neither an
// interface, a func nor a string, nor another name of a type elsewhere.
func exportedTypes(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	var names []string
	fset := token.NewFileSet()
	for _, e := range entries {
		if name := e.Name(); e.Type() != fs.ModeDir && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			for _, decl := range file.Decls {
				names = append(names, exportedIn(decl)...)
			}
		}
	}
	return names
}

func exportedIn(decl ast.Decl) (names []string) {
	gen, ok := decl.(*ast.GenDecl)
	if !ok || gen.Tok != token.TYPE {
		return nil
	}
	for _, spec := range gen.Specs {
		spec, ok := spec.(*ast.TypeSpec)
		if !ok || !spec.Name.IsExported() || spec.Assign.IsValid() {
			continue
		}
		switch typ := spec.Type.(type) {
		case *ast.InterfaceType, *ast.FuncType:
		case *ast.Ident:
			if typ.Name != "string" {
				names = append(names, spec.Name.Name)
			}
		default:
			names = append(names, spec.Name.Name)
		}
	}
	return names
}
