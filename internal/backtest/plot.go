package backtest

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// Plots are inline SVG: text in the page's font, colours as classes of the
// page's style, so that they follow its dark mode, and no script. Four kinds of
// marks are all that the report has, which is less than a plotting library and
// its fonts.

// series is a line, or the bars of one colour.
type series struct {
	name  string
	class string // of the page's style
	x, y  []float64
}

// axes are what a plot is drawn into.
type axes struct {
	label            string // of the whole plot, for those who do not see it
	xLabel, yLabel   string
	xMax, yMin, yMax float64 // yMax 0: what the series need
	xNames           []string
	centred          bool    // x counts: a number stands in the middle of what it counts
	xEnd             float64 // numbers stand below x < xEnd; 0: everywhere
	marks            []mark  // vertical lines
}

type mark struct {
	x    float64
	name string
}

const (
	plotWidth, plotHeight                     = 720.0, 300.0
	leftMargin, rightMargin, topMargin, below = 58.0, 14.0, 14.0, 44.0
	plotRoom                                  = plotWidth - leftMargin - rightMargin
	scaleRoom                                 = 95.0 // of a matrix' scale
)

// drawing is an SVG on its way.
type drawing struct {
	strings.Builder
	*axes
}

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(&d.Builder, format, args...) }

func (d *drawing) px(x float64) float64 {
	return leftMargin + x/d.xMax*plotRoom
}

func (d *drawing) py(y float64) float64 {
	return topMargin + (d.yMax-y)/(d.yMax-d.yMin)*(plotHeight-topMargin-below)
}

// begin draws the frame: axes, ticks and labels.
func (a *axes) begin(all []series) *drawing {
	if a.yMax == 0 {
		for _, s := range all {
			for _, y := range s.y {
				a.yMax = max(a.yMax, y)
			}
		}
		a.yMax = max(a.yMax*1.05, 1e-9)
	}
	d := &drawing{axes: a}
	d.add(`<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, plotWidth, plotHeight, html.EscapeString(a.label))
	for _, y := range ticks(a.yMin, a.yMax, 5) {
		d.add(`<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, leftMargin, plotWidth-rightMargin, d.py(y), d.py(y))
		d.add(`<text class="tick" x="%g" y="%.1f" text-anchor="end">%s</text>`, leftMargin-7, d.py(y)+4, short(y))
	}
	if len(a.xNames) > 0 {
		for i, name := range a.xNames {
			d.add(`<text class="tick" x="%.1f" y="%g" text-anchor="middle">%s</text>`, d.px(float64(i)+0.5), plotHeight-below+17, html.EscapeString(name))
		}
	} else {
		shift := 0.0
		if a.centred {
			shift = 0.5
		}
		for _, x := range ticks(0, a.xMax, 8) {
			if a.xEnd > 0 && x >= a.xEnd {
				break
			}
			d.add(`<text class="tick" x="%.1f" y="%g" text-anchor="middle">%s</text>`, d.px(x+shift), plotHeight-below+17, short(x))
		}
	}
	d.add(`<line class="axis" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, leftMargin, plotWidth-rightMargin, d.py(a.yMin), d.py(a.yMin))
	d.add(`<text class="label" x="%g" y="%g" text-anchor="middle">%s</text>`, (leftMargin+plotWidth-rightMargin)/2, plotHeight-8, html.EscapeString(a.xLabel))
	d.add(`<text class="label" x="12" y="%g" text-anchor="middle" transform="rotate(-90 12 %g)">%s</text>`, (plotHeight-below)/2, (plotHeight-below)/2, html.EscapeString(a.yLabel))
	for _, m := range a.marks {
		class := "mark"
		if m.name == "" {
			class = "mark light"
		}
		d.add(`<line class="%s" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/>`, class, d.px(m.x), d.px(m.x), topMargin, plotHeight-below)
		anchor, dx := "start", 5.0
		if d.px(m.x) > plotWidth-150 {
			anchor, dx = "end", -5
		}
		d.add(`<text class="tick" x="%.1f" y="%g" text-anchor="%s">%s</text>`, d.px(m.x)+dx, plotHeight-below-6, anchor, html.EscapeString(m.name))
	}
	return d
}

func (d *drawing) end() template.HTML {
	d.add("</svg>")
	return template.HTML(d.String())
}

// lines draws series over a numeric axis.
func (a axes) lines(all []series) template.HTML {
	d := a.begin(all)
	for _, s := range all {
		var path strings.Builder
		for i := range s.x {
			move := "L"
			if i == 0 {
				move = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", move, d.px(s.x[i]), d.py(s.y[i]))
		}
		d.add(`<path class="line %s" d="%s"><title>%s</title></path>`, s.class, path.String(), html.EscapeString(s.name))
	}
	return d.end()
}

// bars draws series side by side over names.
func (a axes) bars(all []series) template.HTML {
	a.xMax = float64(len(a.xNames))
	d := a.begin(all)
	width := 0.8 / float64(len(all))
	for i, s := range all {
		for j, y := range s.y {
			x := float64(j) + 0.1 + float64(i)*width
			top := d.py(min(y, a.yMax))
			d.add(`<rect class="bar %s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s, %s: %s</title></rect>`,
				s.class, d.px(x)+0.5, top, max(d.px(x+width)-d.px(x)-1, 1), max(d.py(d.yMin)-top, 0), html.EscapeString(s.name), html.EscapeString(a.xNames[j]), short(y))
		}
	}
	return d.end()
}

// matrix draws cells of x columns and y rows from a function ≥ 0, darker where it
// is greater; NaN is no cell. Its scale stands at the right.
func (a axes) matrix(columns, rows int, value func(column, row int) float64) template.HTML {
	greatest := 1e-9
	for c := range columns {
		for r := range rows {
			if v := value(c, r); !math.IsNaN(v) {
				greatest = max(greatest, v)
			}
		}
	}
	a.xMax, a.centred = float64(columns)*plotRoom/(plotRoom-scaleRoom), true
	a.xEnd = float64(columns)
	d := a.begin(nil)
	wide, high := (plotRoom-scaleRoom)/float64(columns), (plotHeight-topMargin-below)/float64(rows)
	cell := func(x, y, w, h, v float64, title string) {
		d.add(`<rect class="cell" x="%.2f" y="%.2f" width="%.2f" height="%.2f" fill-opacity="%.3f"><title>%s</title></rect>`,
			x, y, w+0.3, h+0.3, 0.04+0.96*v/greatest, html.EscapeString(title))
	}
	for c := range columns {
		for r := range rows {
			if v := value(c, r); !math.IsNaN(v) {
				cell(leftMargin+float64(c)*wide, plotHeight-below-float64(r+1)*high, wide, high, v,
					fmt.Sprintf("%s %d: %.3g", a.xLabel, c, v))
			}
		}
	}
	const steps = 20
	for i := range steps {
		v := greatest * (float64(i) + 0.5) / steps
		h := (plotHeight - topMargin - below) / steps
		cell(plotWidth-scaleRoom+14, plotHeight-below-float64(i+1)*h, 16, h, v, short(v))
	}
	for _, v := range []float64{0, greatest / 2, greatest} {
		y := plotHeight - below - v/greatest*(plotHeight-topMargin-below)
		d.add(`<text class="tick" x="%g" y="%.1f">%s</text>`, plotWidth-scaleRoom+35, y+4, short(v))
	}
	return d.end()
}

// ticks are round numbers within a range, about n of them.
func ticks(from, to float64, n int) (at []float64) {
	step := math.Pow(10, math.Floor(math.Log10((to-from)/float64(n))))
	for _, factor := range []float64{1, 2, 5, 10} {
		if (to-from)/(step*factor) <= float64(n) {
			step *= factor
			break
		}
	}
	for i := math.Ceil(from/step - 1e-9); i*step <= to*(1+1e-9); i++ {
		at = append(at, i*step+0) // + 0: no -0
	}
	return at
}

// short is a number in few digits.
func short(v float64) string {
	if math.Abs(v) >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
