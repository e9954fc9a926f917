package scoring

import "testing"

// The figures of the definitions, section 9.
func TestCalculatorsGiveTheWorkedFigures(t *testing.T) {
	for name, c := range map[string]struct{ got, want float64 }{
		"CAC with service":                   {CAC(100_000+25_000, 1_000), 125},
		"CAC of marketing and sales":         {CAC(100_000, 1_000), 100},
		"CAC ratio":                          {CACRatio(125, 500), 0.25},
		"LTV : CAC":                          {LTVToCAC(500, 125), 4},
		"ROI":                                {ROI(200_000+0.10*1_000*1_000, 50_000), 5},
		"loss value":                         {LossValue(3540, 1150, 0.15), 5393.50},
		"information value":                  {InformationValue(0.5, []InformationUse{{0.1, 1000, 20}, {0.02, 500, 300}}, 2000, 0.75), 0.5*(2000+3000) - 1500},
		"information nobody is asked for":    {InformationValue(1, []InformationUse{{1, 10, 5}}, 0, 100), 50},
		"information that costs only":        {InformationValue(1, nil, 10, 2), -20},
		"loss value without what others say": {LossValue(100, 50, 0), 150},
	} {
		approx(t, name, c.got, c.want, 1e-12)
	}
}
