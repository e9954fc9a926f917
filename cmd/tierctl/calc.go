package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/tierstream/tierstream/internal/cli"
	"github.com/tierstream/tierstream/internal/scoring"
)

// calcCmd are figures whose inputs no event carries. Money is in any one unit.
type calcCmd struct {
	CAC         calcCACCmd         `cmd:"" name:"cac" help:"Acquisition cost of one customer, by both definitions, and LTV : CAC."`
	ROI         calcROICmd         `cmd:"" name:"roi" help:"Return on a spending: (gain - cost)/cost."`
	Loss        calcLossCmd        `cmd:"" name:"loss-value" help:"What a lost customer costs: (a + b)(1 + x)."`
	Information calcInformationCmd `cmd:"" name:"information-value" help:"What customers' information is worth: K·Σ chance·cases·benefit - asked·cost."`
}

// result prints a figure; one that is no number is refused.
func result(t *terminal, label string, v float64) error {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return cli.Usage(fmt.Errorf("%s: a denominator is 0", label))
	}
	_, err := fmt.Fprintf(t.out, "%-20s %s\n", label, strconv.FormatFloat(v, 'f', -1, 64))
	return err
}

type calcCACCmd struct {
	Marketing float64 `required:"" help:"Spent on marketing and sales."`
	Service   float64 `help:"Spent on serving new customers."`
	Customers float64 `required:"" help:"New customers."`
	Value     float64 `help:"Lifetime value of a customer, for the ratios."`
}

func (c *calcCACCmd) Run(t *terminal) error {
	with := scoring.CAC(c.Marketing+c.Service, c.Customers)
	err := errors.Join(result(t, "CAC without service", scoring.CAC(c.Marketing, c.Customers)), result(t, "CAC with service", with))
	if err == nil && c.Value != 0 {
		err = errors.Join(result(t, "CAC ratio", scoring.CACRatio(with, c.Value)), result(t, "LTV : CAC", scoring.LTVToCAC(c.Value, with)))
	}
	return err
}

type calcROICmd struct {
	Gain float64 `required:"" help:"What it brought."`
	Cost float64 `required:"" help:"What it cost."`
}

func (c *calcROICmd) Run(t *terminal) error { return result(t, "ROI", scoring.ROI(c.Gain, c.Cost)) }

type calcLossCmd struct {
	A        float64 `name:"a" required:"" help:"Value lost."`
	B        float64 `name:"b" help:"Cost of replacing it."`
	Goodwill float64 `default:"0.15" help:"Mark-up for what a lost customer tells others."`
}

func (c *calcLossCmd) Run(t *terminal) error {
	return result(t, "loss value", scoring.LossValue(c.A, c.B, c.Goodwill))
}

type calcInformationCmd struct {
	K       float64   `name:"k" default:"1" help:"Part of the benefit that is due to the information."`
	Chance  []float64 `required:"" help:"By use: the chance that it works."`
	Cases   []float64 `required:"" help:"By use: how many cases."`
	Benefit []float64 `required:"" help:"By use: the benefit of one."`
	Asked   float64   `help:"Customers who are asked."`
	Cost    float64   `help:"Cost of asking one."`
}

func (c *calcInformationCmd) Run(t *terminal) error {
	if len(c.Chance) != len(c.Cases) || len(c.Chance) != len(c.Benefit) {
		return cli.Usage(fmt.Errorf("%d chances, %d cases and %d benefits: want one of each by use", len(c.Chance), len(c.Cases), len(c.Benefit)))
	}
	var uses []scoring.InformationUse
	for i := range c.Chance {
		uses = append(uses, scoring.InformationUse{Chance: c.Chance[i], Cases: c.Cases[i], Benefit: c.Benefit[i]})
	}
	return result(t, "information value", scoring.InformationValue(c.K, uses, c.Asked, c.Cost))
}
