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
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
)

// A point is a moment between two effects: before or after one statement to the database or one
// request to Clerk. The test reads the points from the source:
// every call of a method of Store, TxStore, ClerkAPI and pgx is a site, once for each place in
// the package that calls the function around it, because the same line does different things
// for different callers. While the library runs, wrappers around the interfaces find the site by
// the call stack.

// The three layers at which the library leaves its own code.
const (
	layerClerk = "clerk"
	layerStore = "store"
	layerSQL   = "sql"
)

const rootPackage = "github.com/clerkinvite/clerkinvite"

// span is the position of an expression in the source. The base name is enough, because the package is flat.
type span struct {
	File     string
	From, To int
}

func (s span) holds(f runtime.Frame) bool {
	return s.File == filepath.Base(f.File) && s.From <= f.Line && f.Line <= s.To
}

// callSite is a call that leaves the library.
type callSite struct {
	span

	Layer   string
	Methods []string // the called methods of its layer's interface; none means any
	Value   bool     // a method value, which is called elsewhere
	Func    string   // the function around it
	Call    string   // the call's name in the site's name
	Callers []callerSite
	Alone   bool // also reached from outside the package

	fn *types.Func
}

// callerSite is a place where the function around a site is called or passed on.
type callerSite struct {
	span

	Name  string
	Value bool
}

// name returns the name of the site when it is reached through a caller, or from outside.
func (s *callSite) name(caller string) string {
	name := s.Func + "/" + s.Call
	if caller != "" {
		name = caller + ">" + name
	}
	return name
}

// siteTable has all sites of the package. A child process gets it as JSON.
type siteTable struct {
	Sites   []*callSite
	Helpers map[string]bool // functions that only pass a statement on; their callers are the sites
}

// names returns the names of all sites of a layer, "" of all layers.
func (st *siteTable) names(layer string) []string {
	var names []string
	for _, s := range st.Sites {
		if layer != "" && s.Layer != layer {
			continue
		}
		if s.Alone {
			names = append(names, s.name(""))
		}
		for _, c := range s.Callers {
			names = append(names, s.name(c.Name))
		}
	}
	slices.Sort(names)
	return names
}

// theSites reads the source once, or the table of the parent process.
var theSites = sync.OnceValues(func() (*siteTable, error) {
	known := os.Getenv("CHILD_SITES")
	if known == "" {
		return readSites()
	}
	b, err := os.ReadFile(known)
	if err != nil {
		return nil, err
	}
	st := new(siteTable)
	return st, json.Unmarshal(b, st)
})

// sitesFile writes the sites to a file for children, and returns the entry for their environment.
func sitesFile(t *testing.T) string {
	t.Helper()
	st, err := theSites()
	require.NoError(t, err)
	b, err := json.Marshal(st)
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "sites.json")
	require.NoError(t, os.WriteFile(name, b, 0o600))
	return "CHILD_SITES=" + name
}

// noImports is an importer for a package of which only its own types matter: of its imports
// it knows pgx.Tx only.
type noImports struct{}

func (noImports) Import(path string) (*types.Package, error) {
	if path != "github.com/jackc/pgx/v5" {
		return nil, errors.New("not needed")
	}
	pkg := types.NewPackage(path, "pgx")
	var methods []*types.Func
	for _, name := range []string{"Begin", "Commit", "Rollback", "CopyFrom", "SendBatch", "Prepare", "Exec", "Query", "QueryRow"} {
		methods = append(methods, types.NewFunc(token.NoPos, pkg, name, types.NewSignatureType(nil, nil, nil, nil, nil, false)))
	}
	tx := types.NewTypeName(token.NoPos, pkg, "Tx", nil)
	types.NewNamed(tx, types.NewInterfaceType(methods, nil), nil)
	pkg.Scope().Insert(tx)
	pkg.MarkComplete()
	return pkg, nil
}

// checksFile has the wrapper that checks the store's results. It is part of each call to the store.
const checksFile = "contract.go"

func readSites() (*siteTable, error) {
	fset := token.NewFileSet()
	names, err := filepath.Glob(root + "/*.go")
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	info := &types.Info{
		Types: make(map[ast.Expr]types.TypeAndValue), Defs: make(map[*ast.Ident]types.Object),
		Uses: make(map[*ast.Ident]types.Object), Selections: make(map[*ast.SelectorExpr]*types.Selection),
	}
	// Imported types are unknown, so there are many errors; the types of the package are right.
	config := types.Config{Importer: noImports{}, Error: func(error) {}}
	_, _ = config.Check(rootPackage, fset, files, info)
	r := &siteReader{info: info, table: &siteTable{Helpers: make(map[string]bool)}, refs: make(map[*types.Func][]callerSite)}
	r.fset = fset
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && r.takesQuerier(info.Defs[fn.Name]) {
				r.table.Helpers[rootPackage+"."+fn.Name.Name] = true
			}
		}
	}
	files = slices.DeleteFunc(files, func(f *ast.File) bool { return filepath.Base(fset.Position(f.Pos()).Filename) == checksFile })
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				r.read(fn)
			}
		}
	}
	if err := r.nothingElse(files); err != nil {
		return nil, err
	}
	for _, s := range r.table.Sites {
		for _, c := range r.refs[s.fn] {
			// An exported function that is passed on is called from outside the package.
			if !c.Value || !s.fn.Exported() {
				s.Callers = append(s.Callers, c)
			}
		}
		s.Alone = s.fn.Exported() || len(s.Callers) == 0
	}
	return r.table, r.unambiguous()
}

// nothingElse checks that no call leaves the library in a way that read does not find: through a type that embeds one of
// the interfaces, a narrower interface, a type parameter, or a variable of the package.
func (r *siteReader) nothingElse(files []*ast.File) error {
	leaving := []string{
		"Insert", "Update", "Find", "Due", "Page", "History", "SwapTime", "FindUsers", "GetUser", "CreateInvitation", "CreateInvitations", "ListInvitations", "RevokeInvitation",
		"FindMemberships", "AddMember", "RemoveMember",
		"Exec", "Query", "QueryRow", "SendBatch", "CopyFrom", "Prepare", "Begin", "BeginTx", "BeginFunc", "Commit", "Rollback",
	}
	var faults []error
	for _, f := range files {
		for _, decl := range f.Decls {
			fn, _ := decl.(*ast.FuncDecl)
			ast.Inspect(decl, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok || !slices.Contains(leaving, sel.Sel.Name) {
					return true
				}
				at := r.fset.Position(sel.Pos())
				selection := r.info.Selections[sel]
				var method *types.Func
				if selection != nil {
					if method, ok = selection.Obj().(*types.Func); !ok {
						return true // a field
					}
				}
				switch {
				case selection == nil && (sel.Sel.Name == "Query" || sel.Sel.Name == "Insert"): // a type of the package or of net/url, or slices.Insert
				case selection == nil:
					faults = append(faults, fmt.Errorf("%s: unknown receiver of %s", at, sel.Sel.Name))
				case interfaces[selection.Recv().String()] != "" && fn != nil:
				case types.IsInterface(method.Signature().Recv().Type()):
					faults = append(faults, fmt.Errorf("%s: %s of %s is called without one of the interfaces", at, sel.Sel.Name, selection.Recv()))
				}
				return true
			})
		}
	}
	return errors.Join(faults...)
}

type siteReader struct {
	info  *types.Info
	fset  *token.FileSet
	table *siteTable
	refs  map[*types.Func][]callerSite
}

func (r *siteReader) span(n ast.Node) span {
	from, to := r.fset.Position(n.Pos()), r.fset.Position(n.End())
	return span{filepath.Base(from.Filename), from.Line, to.Line}
}

// interfaces are those through which the library leaves its code, by the name of their type.
var interfaces = map[string]string{
	rootPackage + ".Store": layerStore, rootPackage + ".TxStore": layerStore, rootPackage + ".ClerkAPI": layerClerk,
	rootPackage + ".OrganizationAPI": layerClerk,
	rootPackage + ".PgxDB":           layerSQL, rootPackage + ".pgxQuerier": layerSQL, "github.com/jackc/pgx/v5.Tx": layerSQL,
}

func (r *siteReader) takesQuerier(o types.Object) bool {
	fn, ok := o.(*types.Func)
	if !ok || fn.Signature().Recv() != nil {
		return false
	}
	for v := range fn.Signature().Params().Variables() {
		if v.Type().String() == rootPackage+".pgxQuerier" {
			return true
		}
	}
	return false
}

// read finds the sites in a function, and what it calls.
func (r *siteReader) read(decl *ast.FuncDecl) {
	fn, ok := r.info.Defs[decl.Name].(*types.Func)
	if !ok {
		return
	}
	helper := r.table.Helpers[rootPackage+"."+decl.Name.Name] && decl.Recv == nil
	counts := make(map[string]int)
	numbered := func(name string) string {
		if counts[name]++; counts[name] > 1 {
			return fmt.Sprintf("%s#%d", name, counts[name])
		}
		return name
	}
	add := func(n ast.Node, layer, call string, value bool, methods ...string) {
		if !helper {
			r.table.Sites = append(r.table.Sites, &callSite{
				span: r.span(n), Layer: layer, Methods: methods, Value: value, Func: funcName(fn), Call: numbered(call), fn: fn,
			})
		}
	}
	called := make(map[*ast.SelectorExpr]*ast.CallExpr)
	ast.Inspect(decl.Body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			fun := ast.Unparen(call.Fun)
			if index, ok := fun.(*ast.IndexExpr); ok {
				fun = index.X
			}
			if sel, ok := fun.(*ast.SelectorExpr); ok {
				called[sel] = call
			}
			id, _ := fun.(*ast.Ident)
			switch {
			case id != nil && r.takesQuerier(r.info.Uses[id]):
				add(call, layerSQL, id.Name, false, "Query")
			case r.info.Types[fun].Type != nil && r.info.Types[fun].Type.String() == rootPackage+".onChange":
				add(call, layerSQL, "OnChange", false)
			}
		}
		var target types.Object
		at := n
		isCall := false
		switch n := n.(type) {
		case *ast.SelectorExpr:
			var call *ast.CallExpr
			call, isCall = called[n]
			if isCall {
				at = call
			}
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "pgx" && n.Sel.Name == "BeginTxFunc" {
				for _, method := range []string{"BeginTx", "Commit", "Rollback"} {
					add(at, layerSQL, "BeginTxFunc."+method, false, method)
				}
			}
			selection := r.info.Selections[n]
			if selection == nil {
				return true
			}
			target = selection.Obj()
			if layer := interfaces[selection.Recv().String()]; layer != "" {
				add(at, layer, n.Sel.Name, !isCall, n.Sel.Name)
			}
		case *ast.Ident:
			target = r.info.Uses[n]
		}
		if callee, ok := target.(*types.Func); ok && callee != fn && callee.Pkg() != nil && callee.Pkg().Path() == rootPackage {
			if _, method := n.(*ast.Ident); !method || callee.Signature().Recv() == nil {
				caller := numbered(funcName(fn) + " calls " + funcName(callee))
				_, number, more := strings.Cut(caller, "#")
				if caller = funcName(fn); more {
					caller += "#" + number
				}
				r.refs[callee] = append(r.refs[callee], callerSite{r.span(at), caller, !isCall})
			}
		}
		return true
	})
}

// unambiguous checks that each line belongs to one site.
func (r *siteReader) unambiguous() error {
	seen := make(map[string]bool)
	for _, name := range r.table.names("") {
		if seen[name] {
			return fmt.Errorf("two sites are called %s", name)
		}
		seen[name] = true
	}
	return nil
}

// funcName returns the name of a function, with its receiver unless that is the Service.
func funcName(fn *types.Func) string {
	recv := fn.Signature().Recv()
	if recv == nil {
		return fn.Name()
	}
	t := recv.Type()
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	name := types.TypeString(t, func(*types.Package) string { return "" })
	if name == "Service" {
		return fn.Name()
	}
	return name + "." + fn.Name()
}

// where returns the name of the site whose call is on the stack. fromLibrary is false when the call is a test's own.
func (st *siteTable) where(layer, method string) (name string, fromLibrary bool, err error) {
	pcs := make([]uintptr, 96)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var site *callSite
	var trace []string
	for {
		f, more := frames.Next()
		in := strings.HasPrefix(f.Function, rootPackage+".") && !strings.HasSuffix(f.File, "_test.go") && filepath.Base(f.File) != checksFile
		if generic, _, ok := strings.Cut(f.Function, "["); in && st.Helpers[generic] && (ok || generic == f.Function) || in && st.inHelper(f.Function) {
			in = false
		}
		if in {
			trace = append(trace, fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line))
		}
		switch {
		case !in:
		case site == nil:
			site = st.at(f, layer, method, len(trace) > 1)
			if site == nil && (layer != layerSQL || method != "Begin") {
				return "", true, fmt.Errorf("%s %s is called from %s, which was not enumerated", layer, method, trace[0])
			}
			if site != nil && len(site.Callers) == 0 {
				return site.name(""), true, nil
			}
		default:
			for _, c := range site.Callers {
				if c.holds(f) {
					return site.name(c.Name), true, nil
				}
			}
		}
		if !more {
			break
		}
	}
	switch {
	case site != nil && site.Alone:
		return site.name(""), true, nil
	case len(trace) > 0:
		return "", true, fmt.Errorf("%s %s is called by %s, which was not enumerated", layer, method, strings.Join(trace, ", "))
	}
	return "", false, nil
}

// inHelper reports whether a function is a closure in a helper.
func (st *siteTable) inHelper(function string) bool {
	for helper := range st.Helpers {
		if strings.HasPrefix(function, helper+".") || strings.HasPrefix(function, helper+"[") {
			return true
		}
	}
	return false
}

// at returns the site of a frame: the shortest that contains it. Above the first frame only method values count.
func (st *siteTable) at(f runtime.Frame, layer, method string, above bool) *callSite {
	var found *callSite
	for _, s := range st.Sites {
		if s.Layer != layer || !s.holds(f) || len(s.Methods) > 0 && !slices.Contains(s.Methods, method) || s.Value != above {
			continue
		}
		if found == nil || s.To-s.From < found.To-found.From {
			found = s
		}
	}
	return found
}

// fault is what happens at a point.
type fault struct {
	site string // name of the site
	kind string
	hit  int  // how often the site was reached before
	done bool // after the effect instead of before it

	then func() error // for meddle
}

// Kinds of faults.
const (
	faultKill   = "kill"   // the process is killed
	faultFail   = "fail"   // the call fails, before or after its effect
	faultDelay  = "delay"  // the lease ends, and another process delivers everything that is due
	faultCut    = "cut"    // the TCP connection is cut, before the request is sent or after its effect
	faultMeddle = "meddle" // not a fault, but an event that the scenario needs
)

// point is a moment, as it is printed.
func point(site string, done bool) string {
	if done {
		return "after " + site
	}
	return "before " + site
}

func (f *fault) point() string { return point(f.site, f.done) }

// errLost is a broken connection, as pgx and net/http report one.
var errLost = fmt.Errorf("the connection broke: %w", io.ErrUnexpectedEOF)

// track follows the library from point to point, and makes faults happen. A track that only counts has
// no sites.
type track struct {
	sites *siteTable

	mu       sync.Mutex
	faults   []*fault
	happened []*fault
	hits     map[string]int
	unknown  []error

	say   func(point string)                          // reports each point
	kill  func()                                      // ends this process, and does not return
	delay func(inTx bool)                             // lets the lease end
	cut   func(layer string, done bool) (undo func()) // cuts the connection under the next exchange
	hurry func()                                      // lets time pass from now on, to end a lost turn

	// Delayed creates that may send a second email: those with ignore_existing and, if the other invitation is
	// revoked in the meantime, all.
	excused   int
	withdrawn bool
}

func newTrack(faults ...*fault) (*track, error) {
	sites, err := theSites()
	return &track{sites: sites, faults: faults, hits: make(map[string]int), say: func(string) {}}, err
}

// step is one call under way.
type step struct {
	k     *track
	site  string
	layer string
	tx    *pointTx
	fault *fault
	undo  func()
}

// enter is the point before a call. After an error the call must not be made.
func (k *track) enter(ctx context.Context, layer, method string, tx *pointTx) (context.Context, *step, error) {
	site, fromLibrary, err := k.sites.where(layer, method)
	if !fromLibrary {
		return ctx, nil, nil
	}
	k.mu.Lock()
	if err != nil {
		k.unknown = append(k.unknown, err)
		k.mu.Unlock()
		return ctx, nil, nil
	}
	s := &step{k: k, site: site, layer: layer, tx: tx}
	for i, f := range k.faults {
		if f.site == site && f.hit <= k.hits[site] {
			s.fault = f
			k.faults, k.happened = slices.Delete(k.faults, i, i+1), append(k.happened, f)
			break
		}
	}
	k.hits[site]++
	k.mu.Unlock()
	k.say(point(site, false))
	f := s.fault
	switch {
	case f == nil:
	case f.kind == faultCut:
		s.undo = k.cut(layer, f.done)
	case f.kind == faultFail && layer == layerClerk:
		ctx = context.WithValue(ctx, transportFault{}, f.done)
	case f.done:
	case f.kind == faultFail && tx.open():
		_ = tx.Conn().Close(ctx) // the call then fails
	default:
		err = s.happen()
	}
	return ctx, s, err
}

// leave is the point after a call. After an error its response is lost.
func (s *step) leave() error {
	if s == nil {
		return nil
	}
	if s.undo != nil {
		s.undo()
	}
	s.k.say(point(s.site, true))
	if f := s.fault; f == nil || !f.done || f.kind == faultCut || f.kind == faultFail && s.layer == layerClerk {
		return nil
	}
	return s.happen()
}

func (s *step) happen() error {
	switch s.fault.kind {
	case faultKill:
		s.k.kill()
	case faultFail:
		if s.tx.open() {
			_ = s.tx.Conn().Close(context.Background())
		}
		if s.layer == layerStore && strings.HasSuffix(s.site, "/SwapTime") {
			s.k.hurry()
		}
		return errLost
	case faultDelay:
		s.k.delay(s.tx.locks())
	case faultMeddle:
		return s.fault.then()
	}
	return nil
}

// late reports whether this call was delayed, before its effect, until the lease had ended.
func (s *step) late() bool {
	return s != nil && s.fault != nil && s.fault.kind == faultDelay && !s.fault.done
}

// between makes a call between its two points.
func between[T any](ctx context.Context, k *track, layer, method string, tx *pointTx, do func(context.Context) (T, error)) (T, error) {
	var zero T
	ctx, s, err := k.enter(ctx, layer, method, tx)
	if err != nil {
		return zero, err
	}
	v, err := do(ctx)
	if lost := s.leave(); lost != nil {
		return zero, lost
	}
	return v, err
}

// pointAPI is a ClerkAPI with points.
type pointAPI struct {
	clerkinvite.ClerkAPI
	k *track
}

func (a pointAPI) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	return between(ctx, a.k, layerClerk, "FindUsers", nil, func(ctx context.Context) ([]clerkinvite.User, error) { return a.ClerkAPI.FindUsers(ctx, q) })
}

func (a pointAPI) GetUser(ctx context.Context, id string) (*clerkinvite.User, error) {
	return between(ctx, a.k, layerClerk, "GetUser", nil, func(ctx context.Context) (*clerkinvite.User, error) { return a.ClerkAPI.GetUser(ctx, id) })
}

func (a pointAPI) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	ctx, s, err := a.k.enter(ctx, layerClerk, "CreateInvitation", nil)
	if err != nil {
		return nil, err
	}
	if (r.IgnoreExisting || a.k.withdrawn) && s.late() {
		a.k.mu.Lock()
		a.k.excused++
		a.k.mu.Unlock()
	}
	inv, err := a.ClerkAPI.CreateInvitation(ctx, r)
	if lost := s.leave(); lost != nil {
		return nil, lost
	}
	return inv, err
}

func (a pointAPI) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	return between(ctx, a.k, layerClerk, "CreateInvitations", nil, func(ctx context.Context) ([]clerkinvite.Invitation, error) {
		return a.ClerkAPI.CreateInvitations(ctx, rs)
	})
}

func (a pointAPI) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	return between(ctx, a.k, layerClerk, "ListInvitations", nil, func(ctx context.Context) ([]clerkinvite.Invitation, error) {
		return a.ClerkAPI.ListInvitations(ctx, q)
	})
}

func (a pointAPI) RevokeInvitation(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	return between(ctx, a.k, layerClerk, "RevokeInvitation", nil, func(ctx context.Context) (*clerkinvite.Invitation, error) {
		return a.ClerkAPI.RevokeInvitation(ctx, r)
	})
}

func (a pointAPI) FindMemberships(ctx context.Context, q clerkinvite.MembershipQuery) ([]clerkinvite.Membership, error) {
	return between(ctx, a.k, layerClerk, "FindMemberships", nil, func(ctx context.Context) ([]clerkinvite.Membership, error) {
		return a.organizations().FindMemberships(ctx, q)
	})
}

func (a pointAPI) AddMember(ctx context.Context, m clerkinvite.Membership) error {
	_, err := between(ctx, a.k, layerClerk, "AddMember", nil, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.organizations().AddMember(ctx, m)
	})
	return err
}

func (a pointAPI) RemoveMember(ctx context.Context, m clerkinvite.Membership) error {
	_, err := between(ctx, a.k, layerClerk, "RemoveMember", nil, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.organizations().RemoveMember(ctx, m)
	})
	return err
}

func (a pointAPI) organizations() clerkinvite.OrganizationAPI {
	return a.ClerkAPI.(clerkinvite.OrganizationAPI)
}

// pointStore is a Store with points.
type pointStore struct {
	clerkinvite.Store
	k   *track
	now func() time.Time // instead of the store's, if set
}

func (s pointStore) Clock(ctx context.Context) (time.Time, error) {
	return between(ctx, s.k, layerStore, "Clock", nil, func(ctx context.Context) (time.Time, error) {
		at, err := s.Store.Clock(ctx)
		if s.now != nil {
			at = s.now()
		}
		return at, err
	})
}

func (s pointStore) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	return between(ctx, s.k, layerStore, "Insert", nil, func(ctx context.Context) ([]clerkinvite.Result, error) { return s.Store.Insert(ctx, rows) })
}

func (s pointStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	return between(ctx, s.k, layerStore, "Update", nil, func(ctx context.Context) ([]clerkinvite.Result, error) { return s.Store.Update(ctx, changes) })
}

func (s pointStore) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	return between(ctx, s.k, layerStore, "Find", nil, func(ctx context.Context) ([]*clerkinvite.Member, error) { return s.Store.Find(ctx, q) })
}

func (s pointStore) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	return between(ctx, s.k, layerStore, "Due", nil, func(ctx context.Context) ([]*clerkinvite.Member, error) { return s.Store.Due(ctx, q) })
}

func (s pointStore) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	return between(ctx, s.k, layerStore, "Page", nil, func(ctx context.Context) ([]*clerkinvite.Member, error) { return s.Store.Page(ctx, q) })
}

func (s pointStore) Counts(ctx context.Context, tenantID string) (map[clerkinvite.Status]int, error) {
	return between(ctx, s.k, layerStore, "Counts", nil, func(ctx context.Context) (map[clerkinvite.Status]int, error) { return s.Store.Counts(ctx, tenantID) })
}

func (s pointStore) History(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
	return between(ctx, s.k, layerStore, "History", nil, func(ctx context.Context) ([]clerkinvite.HistoryEntry, error) {
		return s.Store.History(ctx, tenantID, id)
	})
}

func (s pointStore) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	return between(ctx, s.k, layerStore, "SwapTime", nil, func(ctx context.Context) (time.Time, error) { return s.Store.SwapTime(ctx, name, old, next) })
}

// pointDB is a PgxDB with points.
type pointDB struct {
	clerkinvite.PgxDB
	k *track
}

func (db pointDB) BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error) {
	ctx, s, err := db.k.enter(ctx, layerSQL, "BeginTx", nil)
	if err != nil {
		return nil, err
	}
	tx, err := db.PgxDB.BeginTx(ctx, opts)
	if lost := s.leave(); lost != nil {
		if err == nil { // the connection is lost with its transaction
			_ = tx.Conn().Close(ctx)
			_ = tx.Rollback(ctx)
		}
		return nil, lost
	}
	if err != nil {
		return nil, err
	}
	return &pointTx{Tx: tx, k: db.k}, nil
}

func (db pointDB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	ctx, s, err := db.k.enter(ctx, layerSQL, "Query", nil)
	if err != nil {
		return nil, err
	}
	return s.rows(db.PgxDB.Query(ctx, sql, args...))
}

// pointTx is a transaction or savepoint with points.
type pointTx struct {
	pgx.Tx
	k     *track
	outer *pointTx // of a savepoint
	over  bool
}

// open reports whether a transaction still has its connection.
func (tx *pointTx) open() bool { return tx != nil && !tx.over }

// locks reports whether rows may be locked: a savepoint ends before its transaction.
func (tx *pointTx) locks() bool { return tx.open() || tx != nil && tx.outer.locks() }

func (tx *pointTx) Begin(ctx context.Context) (pgx.Tx, error) {
	return between(ctx, tx.k, layerSQL, "Begin", tx, func(ctx context.Context) (pgx.Tx, error) {
		inner, err := tx.Tx.Begin(ctx)
		if err != nil {
			return nil, err
		}
		return &pointTx{Tx: inner, k: tx.k, outer: tx}, nil
	})
}

func (tx *pointTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return between(ctx, tx.k, layerSQL, "Exec", tx, func(ctx context.Context) (pgconn.CommandTag, error) { return tx.Tx.Exec(ctx, sql, args...) })
}

func (tx *pointTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	ctx, s, err := tx.k.enter(ctx, layerSQL, "Query", tx)
	if err != nil {
		return nil, err
	}
	return s.rows(tx.Tx.Query(ctx, sql, args...))
}

func (tx *pointTx) Commit(ctx context.Context) error {
	_, err := between(ctx, tx.k, layerSQL, "Commit", tx, func(ctx context.Context) (struct{}, error) {
		tx.over = true
		return struct{}{}, tx.Tx.Commit(ctx)
	})
	return err
}

func (tx *pointTx) Rollback(ctx context.Context) error {
	_, err := between(ctx, tx.k, layerSQL, "Rollback", tx, func(ctx context.Context) (struct{}, error) {
		tx.over = true
		return struct{}{}, tx.Tx.Rollback(ctx)
	})
	return err
}

// rows wraps a query's result, so that the point after it comes when everything is read.
func (s *step) rows(rows pgx.Rows, err error) (pgx.Rows, error) {
	if err != nil || s == nil {
		if lost := s.leave(); lost != nil {
			return nil, lost
		}
		return rows, err
	}
	return &pointRows{Rows: rows, s: s}, nil
}

type pointRows struct {
	pgx.Rows
	s    *step
	once sync.Once
	lost error
}

func (r *pointRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.once.Do(func() { r.lost = r.s.leave() })
	return false
}

func (r *pointRows) Close() {
	r.Rows.Close()
	r.once.Do(func() { r.lost = r.s.leave() })
}

func (r *pointRows) Err() error {
	if r.lost != nil {
		return r.lost
	}
	return r.Rows.Err()
}

// transportFault in the context of a request to Clerk makes it fail; true means after its effect.
type transportFault struct{}

// faultTransport is the network to Clerk.
type faultTransport struct{ http.RoundTripper }

func (f faultTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	done, fails := r.Context().Value(transportFault{}).(bool)
	if fails && !done {
		return nil, errLost
	}
	resp, err := f.RoundTripper.RoundTrip(r)
	if fails && err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return nil, errLost
	}
	return resp, err
}

// scissors cut the TCP connection of the next exchange.
type scissors struct {
	mu    sync.Mutex
	armed bool
	done  bool // when the response comes; otherwise before the request is sent
}

func (s *scissors) arm(done bool) (undo func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed, s.done = true, done
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.armed = false
	}
}

func (s *scissors) cut(done bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.armed && s.done == done
	s.armed = s.armed && !now
	return now
}

func (s *scissors) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, s: s}, nil
}

// dialPostgres is dial for PostgreSQL, where the greeting is not cut, and a response only when it is complete.
func (s *scissors) dialPostgres(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, s: s, postgres: true}, nil
}

type cutConn struct {
	net.Conn
	s        *scissors
	postgres bool
	mu       sync.Mutex
	tail     []byte // the last bytes read
	greeted  bool
}

func (c *cutConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	cut := (!c.postgres || c.greeted) && c.s.cut(false)
	c.mu.Unlock()
	if cut {
		_ = c.Close()
		return 0, syscall.ECONNRESET
	}
	return c.Conn.Write(b)
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	greeted := c.greeted
	ready := c.ready(b[:n])
	if n == 0 || c.postgres && !greeted || !c.s.cut(true) {
		return n, err
	}
	for c.postgres && !ready && err == nil {
		n, err = c.Conn.Read(b)
		ready = c.ready(b[:n])
	}
	_ = c.Close()
	return 0, syscall.ECONNRESET
}

// ready reports whether what was read ends in ReadyForQuery: PostgreSQL has committed.
func (c *cutConn) ready(b []byte) bool {
	c.tail = append(c.tail, b...)
	c.tail = c.tail[max(0, len(c.tail)-6):]
	ready := len(c.tail) == 6 && bytes.HasPrefix(c.tail, []byte{'Z', 0, 0, 0, 5})
	c.greeted = c.greeted || ready
	return ready
}
