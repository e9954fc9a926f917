package scoring

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowedMath are the functions of package math that give the same bits
// everywhere: they are exact or correctly rounded.
var allowedMath = []string{
	"Abs", "Ceil", "Float64bits", "Float64frombits", "Floor", "Inf", "IsInf", "IsNaN", "NaN", "RoundToEven", "Sqrt",
	"MaxInt64", "MinInt64", "MaxFloat64", "Ln2", "Ln10",
}

// TestBitsDoNotDependOnTheMachine reads the source: no function of package
// math that differs between machines, and no product that a compiler may fuse
// with an addition. It may do so across statements and inlined calls, so every
// float product must stand in a conversion, or be a factor, or be divided or
// compared.
func TestBitsDoNotDependOnTheMachine(t *testing.T) {
	for _, dir := range []string{".", "dmath", "btyd"} {
		for _, problem := range machineDependent(t, dir, nil) {
			t.Error(problem)
		}
	}
}

// The check sees what it is for.
func TestMachineDependenceIsSeen(t *testing.T) {
	source := `package p
import "math"
type s struct{ a, b float64 }
func f(x, y, z float64, v s, n int) float64 {
	n += n * n
	_ = x*y + z
	_ = z - (x * y)
	_ = v.a*v.b + 1
	z += x * y
	z *= y
	t := -(x * y)
	_, _ = float64(x*y)+z, float64(x*y*z)/2
	return math.Exp(t)
}`
	if got := machineDependent(t, "", source); len(got) != 7 {
		t.Errorf("found %q, want 7 problems", got)
	}
}

func machineDependent(t *testing.T, dir string, source any) (problems []string) {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	names := []string{"source.go"}
	if source == nil {
		var err error
		if names, err = filepath.Glob(filepath.Join(dir, "*.go")); err != nil || len(names) == 0 {
			t.Fatal("no source found: ", err)
		}
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	// Imported packages are left unresolved: what comes from them has no valid
	// type and is taken for a float.
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	config := types.Config{Error: func(error) {}}
	_, _ = config.Check("p", fset, files, &info)

	report := func(n ast.Node, what string) { problems = append(problems, fset.Position(n.Pos()).String()+": "+what) }
	product := func(e ast.Expr) bool {
		b, ok := e.(*ast.BinaryExpr)
		if !ok || b.Op != token.MUL || info.Types[e].Value != nil { // constants are exact
			return false
		}
		basic, ok := types.Default(orInvalid(info.Types[e].Type)).Underlying().(*types.Basic)
		return !ok || basic.Info()&types.IsInteger == 0
	}
	for _, f := range files {
		rounded := map[ast.Expr]bool{} // products whose parent rounds them, or does not add
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if id, ok := n.X.(*ast.Ident); ok && id.Name == "math" && !slices.Contains(allowedMath, n.Sel.Name) {
					report(n, "math."+n.Sel.Name+" is not the same on every machine: use dmath")
				}
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "float64" {
					rounded[ast.Unparen(n.Args[0])] = true
				}
			case *ast.BinaryExpr:
				if n.Op != token.ADD && n.Op != token.SUB {
					rounded[ast.Unparen(n.X)], rounded[ast.Unparen(n.Y)] = true, true
				}
				if product(n) && !rounded[n] {
					report(n, "product not in float64(…)")
				}
			case *ast.AssignStmt:
				if n.Tok == token.MUL_ASSIGN {
					if basic, ok := orInvalid(info.Types[n.Lhs[0]].Type).Underlying().(*types.Basic); !ok || basic.Info()&types.IsInteger == 0 {
						report(n, "product not in float64(…)")
					}
				}
			}
			return true
		})
	}
	return problems
}

func orInvalid(t types.Type) types.Type {
	if t == nil {
		return types.Typ[types.Invalid]
	}
	return t
}
