package doccheck_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// godoc reads the documentation of a package, with its examples.
func godoc(t *testing.T, dir string) *doc.Package {
	t.Helper()
	fset := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	require.NotEmpty(t, names, dir)
	var files []*ast.File
	for _, name := range names {
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, f)
	}
	p, err := doc.NewFromFiles(fset, files, "github.com/clerkinvite/clerkinvite/"+dir, doc.PreserveAST)
	require.NoError(t, err)
	return p
}

// Everything exported has documentation, functions that can fail document their errors, and each verb has an example that runs.
func TestGodoc(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{".", "clerkapi", "clerkinvitetest", "storetest", "sqlitestore", "otelclerkinvite"} {
		p := godoc(t, dir)
		require.NotEmpty(t, p.Doc, dir)
		function := func(of string, f *doc.Func) {
			name := strings.TrimPrefix(of+"."+f.Name, ".")
			switch f.Name {
			case "LogValue", "Format", "Error", "Unwrap", "Is", "HTTPStatus", "PublicMessage", "GoString", "String":
				// The errors are documented at the interface.
			default:
				if strings.Contains(f.Doc, f.Name+" implements ") {
					break // whose documentation is the contract
				}
				assert.Greater(t, len(strings.Fields(f.Doc)), 3, "%s: %s has no documentation", dir, name)
				if fails(f.Decl) {
					assert.Contains(t, strings.ToLower(f.Doc), "err", "%s: %s does not document its errors", dir, name)
				}
			}
			if (of == "Service" || of == "Reserver") && dir == "." && f.Name != "Format" {
				ran := false
				for _, e := range f.Examples {
					ran = ran || e.Output != ""
				}
				assert.True(t, ran, "%s has no example with output", name)
			}
		}
		for _, f := range p.Funcs {
			function("", f)
		}
		for _, v := range append(p.Vars, p.Consts...) {
			documented(t, dir, v.Decl)
		}
		for _, typ := range p.Types {
			assert.NotEmpty(t, typ.Doc, "%s: %s has no documentation", dir, typ.Name)
			for _, f := range append(typ.Funcs, typ.Methods...) {
				of := ""
				if f.Recv != "" {
					of = typ.Name
				}
				function(of, f)
			}
			for _, v := range append(typ.Vars, typ.Consts...) {
				documented(t, dir, v.Decl)
			}
		}
	}
}

// fails reports whether a function returns an error.
func fails(f *ast.FuncDecl) bool {
	if f.Type.Results == nil {
		return false
	}
	for _, r := range f.Type.Results.List {
		if id, ok := r.Type.(*ast.Ident); ok && id.Name == "error" {
			return true
		}
	}
	return false
}

// documented checks that each constant or variable of a group has a comment, or the group has one.
func documented(t *testing.T, dir string, d *ast.GenDecl) {
	t.Helper()
	for _, spec := range d.Specs {
		v := spec.(*ast.ValueSpec)
		for _, name := range v.Names {
			if name.IsExported() {
				assert.True(t, d.Doc != nil || v.Doc != nil || v.Comment != nil, "%s: %s has no documentation", dir, name.Name)
			}
		}
	}
}
