module penstock/e2e

go 1.26.0

require penstock v0.0.0

replace penstock => ../
